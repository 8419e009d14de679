"""Calls of onnxruntime: a graph of one node, bound to tensors' memory, as a peer of the ops."""

from functools import partial

import torch

from benchmarks import peers

NUMPY = {
    torch.float32: "float32",
    torch.float16: "float16",
    torch.int8: "int8",
    torch.uint8: "uint8",
    torch.int32: "int32",
}


def call(op, inputs, constants, out, domain="", **attributes):
    """A function without arguments that runs the node and returns `out`; None where onnxruntime is not or cannot.

    Arguments:
        inputs: {name: tensor} that are read where they are; an empty name stands for an input left out.
        constants: {name: numpy array}, after the inputs in the node's order.
        out: the tensor that is written.
    """
    if peers.find("onnxruntime") is None or peers.find("onnx") is None:
        return None
    make = partial(_call, op, inputs, constants, out, domain, attributes)
    return peers.attempt("onnxruntime", f"{op} to {out.dtype}", make)


def _call(op, inputs, constants, out, domain, attributes):
    onnxruntime, onnx = peers.find("onnxruntime"), peers.find("onnx")
    helper = onnx.helper
    node = helper.make_node(op, [*inputs, *constants], ["result"], domain=domain, **attributes)

    def declared(name, tensor):
        return helper.make_tensor_value_info(name, _type(onnx, tensor), list(tensor.shape))

    graph = helper.make_graph(
        [node],
        op,
        [declared(name, tensor) for name, tensor in inputs.items()],
        [declared("result", out)],
        [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    domains = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=domains, ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    for name, tensor in inputs.items():
        binding.bind_input(name, *_place(tensor))
    binding.bind_output("result", *_place(out))
    held = tuple(inputs.values())  # as long as the call

    def run(held=held):
        session.run_with_iobinding(binding)
        return out

    return run


def _type(onnx, tensor):
    return onnx.helper.np_dtype_to_tensor_dtype(tensor.new_empty(0).numpy().dtype)


def _place(tensor):
    return "cpu", 0, NUMPY[tensor.dtype], list(tensor.shape), tensor.data_ptr()
