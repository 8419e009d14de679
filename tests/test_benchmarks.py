"""The benchmarks' clock, their rows and their report, on numbers that were made up; deep, that each of them runs."""

import dataclasses
import html
import json
import re
import shutil
import subprocess
import sys
from itertools import pairwise

import pytest
import torch

from benchmarks import beside_triton, cases, layers, machine, peers, report, roofline, rows, timing
from benchmarks.report import charts, reasons, tables
from benchmarks.timing import Candidate

# The clock


def test_candidates_take_turns():
    called = []
    timings = timing.take_turns([{"a": lambda: called.append("a"), "b": lambda: called.append("b")}], clock=_ticks)
    measured = called[4:]  # beside the first calls
    assert measured[::2] == measured[1::2]  # the call that is timed, and the one before it
    turns = [measured[at : at + 4 : 2] for at in range(0, len(measured), 4)]
    assert turns[:4] == [["a", "b"], ["b", "a"]] * 2
    assert len(turns) >= timing.LEAST_TURNS
    assert timings["a"] == timing.Timing(1.0, 1.0, 1.0)


def _ticks(function, times=1):
    function()
    return 1.0


def test_cold_calls_never_have_the_operands_of_the_call_before():
    called = []
    sets = [{name: lambda key=(name, number): called.append(key) for name in "ab"} for number in range(3)]
    timing.take_turns(sets, clock=_ticks)
    measured = called[2 * (len(sets) + 1) :]  # beside the first calls
    assert all(before[1] != after[1] for before, after in pairwise(measured))
    assert {number for _, number in measured} == {0, 1, 2}


def test_cold_operands_are_more_than_the_last_cache():
    for nbytes in (1, 10**6, machine.last_cache(), 10**10):
        assert (timing.sets_of_operands(nbytes) - 1) * nbytes >= timing.COLD * machine.last_cache() or nbytes > 10**9
    assert timing.sets_of_operands(10**10) == 2


def test_the_slow_have_few_turns():
    turns = {"fast": 0, "slow": 0}

    def call(name):
        turns[name] += 1

    def clock(function, times=1):
        function()
        return 100.0 if function.__defaults__[0] == "slow" else 1.0

    timing.take_turns([{name: lambda own=name: call(own) for name in turns}], clock)
    assert turns["slow"] == 1 + timing.SLOW_TURNS < turns["fast"]  # nor is a long call called before each


def test_a_short_call_is_repeated_within_its_turn():
    called = []
    timing.take_turns([{"short": lambda: None}], lambda function, times=1: called.append(times) or 0.01)
    assert max(called) == 200  # 2 ms


def test_results_are_compared_before_they_are_timed():
    x = torch.arange(8.0)
    right = {"reference": Candidate(lambda: x, exact=True)}
    timing.check({**right, "same": Candidate(lambda: x.clone(), exact=True), "near": Candidate(lambda: x * 1.01)})
    timing.check({**right, "read": Candidate(lambda: (1, x), exact=True, read=lambda result: result[1])})
    for wrong, words in (
        (Candidate(lambda: x + 1e-6, exact=True), "gives other bits"),
        (Candidate(lambda: x * 1.1), "of the result's norm away"),
        (Candidate(lambda: x[:4]), r"gives the shape \[4\]"),
    ):
        with pytest.raises(AssertionError, match=words):
            timing.check({**right, "wrong": wrong})
        assert re.search(words, timing.check({**right, "wrong": wrong}, spared=["wrong"])["wrong"])
    with pytest.raises(AssertionError, match="one value everywhere"):
        timing.check({"zeros": Candidate(lambda: torch.zeros(8), exact=True)})


def test_a_case_becomes_rows():
    def make(seed):
        x = timing.normal(64, seed=seed)
        return {
            "reference": Candidate(lambda: x + 1, exact=True),
            "quaver": Candidate(lambda: 1 + x, exact=True),
            "missing": None,
        }

    case = cases.Case("add", "64", make, cases.COLD, nbytes=machine.last_cache(), moved=512)
    found = cases.measure("sums", case, 1, machine.Probe(2**12))
    assert [row.candidate for row in found] == ["reference", "quaver"]
    assert {row.key for row in found} == {("sums", "add", "64", "cold", 1)}
    assert all(0 < row.low <= row.milliseconds <= row.high for row in found)
    assert cases.line(found).startswith("add, 64, cold, 1 thread: reference ")


def test_a_wrong_peer_is_named_and_left_out():
    def make(seed):
        x = timing.normal(64, seed=seed)
        right = {"reference": Candidate(lambda: x + 1, exact=True), "quaver": Candidate(lambda: 1 + x, exact=True)}
        return {**right, "peer": Candidate(lambda: 2 * x)}

    found = cases.measure("sums", cases.Case("add", "64", make), 1, machine.Probe(2**12))
    assert [row.candidate for row in found] == ["reference", "quaver"]
    assert "of the result's norm away" in peers.failed.pop(("peer", "add, 64"))
    ours = cases.Case("add", "64", lambda seed: {**make(seed), "quaver, fast": Candidate(lambda: torch.ones(64))})
    with pytest.raises(AssertionError, match=r"^quaver, fast is "):
        cases.measure("sums", ours, 1, machine.Probe(2**12))


# The machine


def test_what_int8_peers_find_of_a_product():
    def found(value, **others):
        return Candidate(lambda: torch.full((2, 2), value), **others)

    candidates = {"reference": found(4.0, exact=True), "quaver": found(4.0, exact=True), "float32": found(3.9)}
    candidates |= {"quaver, asymmetric": found(3.8), "peer": found(2.0), "absent": None}
    assert cases.shares_found("a product", candidates) == {"a product, peer": "50.0% of the exact one"}


def test_a_disturbed_machine_is_seen():
    assert not machine.disturbed((1.0, 1.0), (1.2, 1.3))
    assert machine.disturbed((1.0, 1.0), (1.3, 1.0))
    assert machine.disturbed((1.0, 1.4), (1.0, 1.0))


def test_the_machine_is_described():
    about = machine.described()
    assert re.fullmatch(r"[a-z0-9-]+", about["kind"])
    assert about["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    json.dumps(about)


def test_a_missing_peer_is_named():
    assert peers.find("no_such_library") is None
    assert peers.absent.pop("no_such_library") == "ModuleNotFoundError: No module named 'no_such_library'"
    assert peers.attempt("peer", "work", lambda: 1 / 0) is None
    assert peers.failed.pop(("peer", "work")) == "ZeroDivisionError: division by zero"


def test_the_products_of_a_cpu_are_those_of_known_layers():
    found = list(layers.on_cpu(quick=False))
    assert {model for model, *_ in found} == set(layers.LAYERS)
    assert all(
        m * n * k <= layers.MOST_ON_CPU and layers.LAYERS[model][name] == (n, k) for model, name, m, n, k in found
    )


# The rows and what is made of them


def made_up(candidate="quaver", milliseconds=1.0, **others):
    row = rows.Row(
        *("matmul", "product to int32", "MiniLM-L6: down, 64 x 384 x 1536", "warm", 1, candidate, milliseconds),
        *(0.9 * milliseconds, 1.1 * milliseconds, 0, 2 * 64 * 384 * 1536, False),
    )
    return dataclasses.replace(row, **others)


@pytest.fixture
def result():
    """A case that is lost, one that is won, with another way of quaver's, layers and a model."""
    found = [made_up("reference", 9.0), made_up(), made_up("torch._int_mm", 0.5), made_up("onnxruntime", 4.0)]
    cold = {"group": "elementwise", "op": "quantize", "case": "4096 x 4096, float32, per tensor", "memory": "cold"}
    cold |= {"moved": 8 * 10**6, "operations": 0, "disturbed": True}
    found += [made_up(name, ms, **cold) for name, ms in (("reference", 30.0), ("quaver", 1.0), ("torch", 2.0))]
    for m in (1, 64):
        layer = {"group": "linear", "op": "linear layer", "case": f"MiniLM-L6: down, {m} x 384 x 1536"}
        ways = (("reference", 9.0), ("quaver", 1.0), ("quaver, asymmetric", 1.1), ("float32", 1.0 + m))
        found += [made_up(name, ms, **layer) for name, ms in ways]
    model = {"group": "models", "op": "MiniLM", "case": "1 x 32 tokens", "operations": 0}
    found += [made_up("float32", 3.0, **model), made_up("quaver, dynamic asymmetric", 2.0, **model)]
    notes = {
        "matmul, 1 threads": {"copied per second": 1.6e10, "absent": {"torchao": "not <here>"}, "broken": ["a case"]},
        "overhead, 1 threads": {"facts": {"MiB of the wheel": 12.5}, "seconds": 3},
    }
    return report.Result({**machine.described(), "notes": notes}, tuple(found))


def test_rows_are_read_as_they_were_written(result, tmp_path):
    result.write(tmp_path)
    assert report.Result.read(tmp_path) == result


def test_ratios(result):
    lost, won, *_ = result.cells
    assert (lost.over_reference, lost.over_best, lost.loses) == (9.0, 0.5, True)
    assert [row.candidate for row in lost.peers] == ["torch._int_mm", "onnxruntime"]
    assert (won.over_reference, won.over_best, won.loses) == (30.0, 2.0, False)
    assert [cell.ours.candidate for cell in result.cells[2:4]] == ["quaver", "quaver, asymmetric"]
    assert result.share(won.ours) == ("copy", 0.5)
    assert result.share(lost.ours) == ("product", 0.5)


def test_losses_stand_in_bold_and_disturbed_cases_are_marked(result):
    text = tables.text_of([result])
    assert "| MiniLM-L6: down, 64 x 384 x 1536, warm | 1 | 1 ms | 9.00 | **0.50** torch._int_mm | 50% |" in text
    assert "| 4096 x 4096, float32, per tensor, cold ~ | 1 | 1 ms | 30 | 2.00 torch | 50% |" in text
    assert "- MiB of the wheel: 12.5" in text
    assert "- not timed: a case" in text
    summary = tables.summary_of([result])
    assert "| product to int32 | 1 | 9.00 | **0.50** (**0.50** to **0.50**) | **1** |" in summary
    assert "| linear layer, asymmetric | 2 |" in summary
    assert (
        tables.in_words(result) == "7 comparisons; of 7 with peers, quaver is beaten in 1; disturbed by other work: 1"
    )


def test_a_part_that_was_timed_again_takes_its_place(result):
    about = {**result.about, "commit": "first", "date": "2026-01-01"}
    again = dataclasses.replace(result.rows[0], group="matmul", milliseconds=7.0)
    note = {"commit": "second", "date": "2026-01-02", "facts": {"a fact": "of the second"}}
    later = report.Result({**about, "notes": {"matmul, 1 threads": note}}, (again,))
    whole = report.Result(about, result.rows).with_later(later)
    kept = [row for row in result.rows if row.group != "matmul"]
    assert [row for row in whole.rows if row.group != "matmul"] == kept
    assert [row for row in whole.rows if row.group == "matmul"] == [again]
    assert "commit first" in (line := tables.machine_line(whole.about))
    assert line.endswith("; matmul again 2026-01-02, commit second")
    assert "- a fact: of the second" in tables.text_of([whole])
    other = {**later.about, "versions": {**about["versions"], "torch": "9.9"}}
    with pytest.raises(ValueError, match="of other versions"):
        result.with_later(report.Result(other, (again,)))


def test_every_loss_that_is_kept_has_its_reason():
    for result in report.kept():
        unexplained = reasons.given(result).get(None, [])
        assert not unexplained, [(cell.ours.key, cell.peers[0].candidate) for cell in unexplained]


def test_a_loss_without_a_reason_says_so(result, monkeypatch):
    monkeypatch.setattr(reasons, "REASONS", ())
    assert reasons.given(result) == {None: [result.cells[0]]}
    assert "- not found out yet: 1 of 7 comparisons, such as product to int32 of MiniLM-L6" in tables.text_of([result])


def test_the_tables_are_those_of_the_kept_results():
    results = report.kept()
    assert tables.text_of(results) == tables.RESULTS.read_text()
    text = tables.README.read_text()
    assert text.count(tables.BEGIN) == text.count(tables.END) == 1
    shown = text.partition(tables.BEGIN)[2].partition(tables.END)[0]
    assert shown == f"\n{tables.summary_of(results)}\n"


def test_the_page_has_every_candidate_and_needs_no_network(result, tmp_path):
    text = report.write_page(result, tmp_path).read_text()
    for row in result.rows:
        assert f"<td>{row.candidate}</td>" in text
    assert not re.findall(r"""(?:src|href)=['"]?+(?!data:)|https?://|@import|url\(""", text)
    assert "not &lt;here&gt;" in text
    assert "counted in the emulator, not measured" in text
    assert all(f"<td>{cell}</td>" in text for line in beside_triton.read()[1] for cell in map(html.escape, line))
    assert all(f"<h3>{card}</h3>" in text for card in roofline.CARDS)
    assert len(list(tmp_path.glob("chart-*.png"))) == text.count("<img ") >= 3


def test_the_bounds_on_four_cards_are_those_of_the_plan():
    assert roofline.text() == roofline.PAGE.read_text(), "`python -m benchmarks.roofline` makes the page anew"


def test_without_matplotlib_the_page_says_so(result, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    text = report.write_page(result, tmp_path).read_text()
    assert "There are no charts" in text
    assert "<td>onnxruntime</td>" in text


def test_charts_only_of_what_there_is(result):
    assert charts.draw(report.Result(result.about, ())) == {}
    products = report.Result(result.about, result.rows[:4])
    assert list(charts.draw(products)) == ["How many times quaver's time the others take", "What bounds a product"]


@pytest.mark.deep
def test_the_page_in_a_browser(result, tmp_path):
    """Every chart is decoded and drawn, a loss is red, and the search box hides what does not match."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium on this machine")
    path = report.write_page(result, tmp_path)
    look = """<script>
    const input = document.querySelector("input");
    input.value = "linear asymmetric";
    input.dispatchEvent(new Event("input"));
    const shown = [...document.querySelectorAll("tbody.case")].filter(each => each.offsetHeight > 0);
    document.body.dataset.found = JSON.stringify({
      drawn: [...document.images].map(image => image.naturalWidth),
      shown: shown.map(each => each.textContent),
      lost: getComputedStyle(document.querySelector(".lost")).color,
    });
    </script>"""
    looked = tmp_path / "looked.html"
    looked.write_text(path.read_text().replace("</html>", f"{look}</html>"))
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    flags += ["--disable-component-update", "--disable-sync", f"--user-data-dir={tmp_path / 'profile'}"]

    def browse(*arguments):
        command = [browser, *flags, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout

    told = re.search(r'data-found="(.*?)"', browse("--dump-dom", looked.as_uri())).group(1).replace("&quot;", '"')
    found = json.loads(told)
    assert len(found["drawn"]) >= 3
    assert min(found["drawn"]) > 300
    assert len(found["shown"]) == 2
    assert all("quaver, asymmetric" in text for text in found["shown"])
    assert found["lost"] in ("rgb(207, 34, 46)", "rgb(248, 81, 73)")

    browse(f"--screenshot={tmp_path / 'shot.png'}", "--window-size=1200,1600", path.as_uri())
    from matplotlib import image

    pixels = image.imread(tmp_path / "shot.png")[..., :3]
    blue = torch.tensor(pixels).sub(torch.tensor([0x1F, 0x6F, 0xEB]) / 255).abs().amax(-1) < 0.12
    assert blue.sum() > 50  # dots of the first chart


# The benchmarks themselves


@pytest.mark.deep
@pytest.mark.parametrize("group", ["elementwise", "matmul", "linear", "conv2d", "models", "overhead"])
def test_each_benchmark_runs(group, tmp_path):
    file = tmp_path / "rows.csv"
    command = [sys.executable, "-m", f"benchmarks.bench_{group}", "--quick", "--threads", "1", "--rows", file]
    done = subprocess.run(command, cwd=machine.ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    notes = json.loads((tmp_path / "rows.csv.json").read_text())
    assert notes["broken"] == []
    assert notes["failed"] == {}  # of the peers that are here
    if group == "conv2d":  # torch is always here
        assert re.fullmatch(r"\d+\.\d% of the exact one", *notes["facts"].values())
    found = rows.cells(rows.read(file))
    if not found and group == "models":
        pytest.skip(f"no model is installed: {notes['absent']}")
    assert found
    assert all(cell.ours.milliseconds > 0 for cell in found)
