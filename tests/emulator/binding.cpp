// binding.cpp: the machine as a Python module.
#include <dlfcn.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <stdexcept>
#include <unordered_map>

#include "machine.h"

namespace py = pybind11;

namespace emulator {
namespace {

struct Entry {
  const char* signature;
  Function run;
};

std::unordered_map<std::string, Function>& functions() {
  static std::unordered_map<std::string, Function> table;
  return table;
}

void nothing(Warp&, const Code&) {}

// A library of generated functions: it exports `entries` and `entry_count`.
void load_functions(const std::string& path) {
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) throw std::runtime_error(dlerror());
  const auto* entries = static_cast<const Entry*>(dlsym(library, "entries"));
  const auto* count = static_cast<const int*>(dlsym(library, "entry_count"));
  if (entries == nullptr || count == nullptr) throw std::runtime_error(path + " exports no entries");
  for (int i = 0; i < *count; ++i) functions()[entries[i].signature] = entries[i].run;
}

// (signature, flow, guard, guard negated, target, operands, registers, fragment)
using Decoded =
    std::tuple<std::string, int, int, bool, int, std::vector<int64_t>, std::vector<int32_t>, std::vector<int32_t>>;

Program make_program(const std::string& kernel, const std::vector<Decoded>& decoded, int registers32, int registers64,
                     int predicates, const std::vector<int>& special, uint32_t static_shared, uint32_t local_bytes) {
  Program program;
  program.kernel = kernel;
  program.registers32 = registers32;
  program.registers64 = registers64;
  program.predicates = predicates;
  program.static_shared = static_shared;
  program.local_bytes = local_bytes;
  if (special.size() != program.special.size())
    throw std::runtime_error("special registers do not match the machine's");
  std::copy(special.begin(), special.end(), program.special.begin());
  for (const auto& [signature, flow, guard, negated, target, operands, registers, fragment] : decoded) {
    Code code;
    code.flow = static_cast<Flow>(flow);
    const auto found = functions().find(signature);
    code.run = found != functions().end() ? found->second : nothing;
    if (found == functions().end() && !signature.empty()) throw std::runtime_error("no function for " + signature);
    code.guard = guard;
    code.guard_negated = negated;
    code.target = target;
    if (operands.size() > kMaxOperands) throw std::runtime_error("too many operands: " + signature);
    std::copy(operands.begin(), operands.end(), code.operand);
    code.registers = registers;
    code.fragment = fragment;
    program.has_wgmma |= !fragment.empty();
    program.codes.push_back(std::move(code));
  }
  return program;
}

py::dict run(const Program& program, std::array<uint32_t, 3> grid, std::array<uint32_t, 3> block,
             uint32_t dynamic_shared, const py::bytes& parameters, uint64_t seed, uint64_t first_block,
             uint64_t most_steps) {
  Launch launch;
  launch.grid = grid;
  launch.block = block;
  launch.dynamic_shared = dynamic_shared;
  launch.seed = seed;
  launch.first_block = first_block;
  launch.most_steps = most_steps;
  const std::string bytes = parameters;
  launch.parameters.assign(bytes.begin(), bytes.end());
  Machine machine(program, std::move(launch));
  {
    py::gil_scoped_release release;
    machine.run();
  }
  py::list reports, counters;
  for (const Report& r : machine.reports)
    reports.append(py::make_tuple(r.kind, r.code, r.block, r.thread, r.address, r.words));
  for (const CodeCounters& c : machine.counters)
    counters.append(py::make_tuple(c.warps, c.lanes, c.bytes, c.units, c.ideal, c.traffic));
  py::dict result;
  result["reports"] = reports;
  result["counters"] = counters;
  return result;
}

}  // namespace
}  // namespace emulator

PYBIND11_MODULE(machine, m) {
  using namespace emulator;
  m.doc() = "Runs decoded PTX on the CPU.";
  py::class_<Program>(m, "Program");
  m.def("load_functions", &load_functions);
  m.def("make_program", &make_program);
  m.def("run", &run);
  m.def("add_allocation",
        [](uint64_t begin, uint64_t size, bool holds_data) { global_memory().add(begin, size, holds_data); });
  m.def("allocations", [] { return global_memory().size(); });
  m.def("remove_allocation", [](uint64_t begin) { global_memory().remove(begin); });
}
