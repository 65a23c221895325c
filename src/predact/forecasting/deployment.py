"""The forms in which a trained network can run: torch as it is or with int8 weights, ONNX Runtime as it is or int8.

Only float weights are ever stored: torch's int8 modules are made after loading, for their weights are objects that no
safe reader takes back. The ONNX forms run one graph of everything from normalisation to blend.
Shapes: B windows, C channels, L look-back, H horizon, Q quantile levels.
"""

from __future__ import annotations

import io
import logging
import tempfile
import warnings
from collections.abc import Callable
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from predact.forecasting.lstm import SegmentLSTM
from predact.forecasting.network import MEDIAN, ForecastNetwork, latest
from predact.forecasting.normalization import window_scale
from predact.forecasting.ridge import Centre
from predact.runtime.errors import PredactError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from onnxruntime import InferenceSession

log = logging.getLogger(__name__)

FormName = Literal["torch_float", "torch_qd_linear", "torch_qd_lstm", "onnx_float", "onnx_int8"]
FORM_NAMES: tuple[FormName, ...] = get_args(FormName)
OPSET = 17
EXPORT_PACKAGES = ("onnx", "onnxruntime")
KEPT_FLOAT = {"matrix", "quantile_steps"}
"""Weights of `_Fused`, by name, that an int8 graph holds as float."""


class KnownWarning(NamedTuple):
    """A warning that says nothing new; `module` is where it comes from, any if empty."""

    message: str
    category: type[Warning]
    module: str = ""


# What torch says at every call of an interface that is still there; anything else it says is shown.
QUANTIZE_WARNINGS: tuple[KnownWarning, ...] = (
    KnownWarning(r"torch\.ao\.quantization is deprecated", DeprecationWarning),
    KnownWarning(r"torch\.quantize_per_tensor, .*are deprecated", UserWarning),
)
EXPORT_WARNINGS: tuple[KnownWarning, ...] = (
    KnownWarning(r"You are using the legacy TorchScript-based ONNX export", DeprecationWarning),
    KnownWarning(r"The feature will be removed\. Please remove usage of this function", DeprecationWarning),
    # The graph has no initial state that a batch size could be frozen into.
    KnownWarning(r"Exporting a model to ONNX with a batch_size other than 1, with a variable length", UserWarning),
    # torch itself ignores what its own modules check while they are traced, until somebody resets the filters.
    KnownWarning(r"Converting a tensor to a Python boolean", Warning, module=r"torch\.(?!jit)"),
)

Floats = NDArray[np.float32]


class Arrays(NamedTuple):
    """What a form returns: a point, (B, C, H), and quantiles, (B, C, H, Q), where the network has them."""

    point: Floats
    quantiles: Floats | None


class Form(Protocol):
    """A network ready to run."""

    @property
    def name(self) -> str:
        """One of `FORM_NAMES`, or `torch_cuda`."""

    @property
    def size_bytes(self) -> int:
        """Size of its weights as they would be stored."""

    def run(self, inputs: Floats) -> Arrays:
        """Forecast scaled windows, (B, C, L) float32."""


class FormUnavailable(Exception):
    """A form cannot be made here; the text says why in a few words."""


class TorchForm:
    """Runs a torch module, on the device that it is on."""

    def __init__(self, name: str, module: nn.Module) -> None:
        self.name = name
        self._module = module.eval()
        self._device = next((tensor.device for tensor in module.parameters()), torch.device("cpu"))

    @property
    def size_bytes(self) -> int:
        """Bytes of its weights as `torch.save` writes them."""
        buffer = io.BytesIO()
        torch.save(self._module.state_dict(), buffer)
        return buffer.tell()

    def run(self, inputs: Floats) -> Arrays:
        """Forecast scaled windows, (B, C, L) float32."""
        with torch.inference_mode():
            output = self._module(torch.from_numpy(inputs).to(self._device))
            quantiles = None if output.quantiles is None else output.quantiles.cpu().numpy()
            return Arrays(output.point.cpu().numpy(), quantiles)


class OnnxForm:
    """Runs an ONNX graph on one CPU thread.

    A single window, the usual call of an agent, has a session of its own in which every shape is known: ONNX Runtime
    then computes none of them while it runs.
    """

    def __init__(self, name: str, graph: bytes) -> None:
        self.name = name
        self._graph = graph
        self._sessions: dict[bool, InferenceSession] = {True: _session(graph, batch_size=1)}

    @property
    def size_bytes(self) -> int:
        """Bytes of the file."""
        return len(self._graph)

    def run(self, inputs: Floats) -> Arrays:
        """Forecast scaled windows, (B, C, L) float32."""
        is_single = len(inputs) == 1
        if is_single not in self._sessions:
            self._sessions[is_single] = _session(self._graph, batch_size=None)
        point, *quantiles = self._sessions[is_single].run(None, {"inputs": inputs})
        return Arrays(point, quantiles[0] if quantiles else None)


def build_form(
    name: FormName, network: ForecastNetwork, *, channels: int, graph: bytes | None = None
) -> TorchForm | OnnxForm:
    """Bring a float network into a form.

    Args:
        channels: how many the windows have; an ONNX graph is built for just as many.
        graph: the float ONNX graph or the int8 one, as the form needs it, if it is there already.

    Raises:
        FormUnavailable: This machine, or this version of torch or ONNX Runtime, cannot.
        PredactError: The extra of the ONNX forms is not installed.
    """
    if name == "torch_float":
        return TorchForm(name, network)
    if name == "torch_qd_linear":
        return TorchForm(name, quantized_module(network, {nn.Linear}))
    if name == "torch_qd_lstm":
        return TorchForm(name, quantized_module(network, {nn.Linear, nn.LSTM}))
    require_export_extra()
    if graph is None:
        graph = onnx_graph(network, channels=channels)
        graph = int8_graph(graph) if name == "onnx_int8" else graph
    try:
        return OnnxForm(name, graph)
    except Exception as error:  # those of ONNX Runtime have no class of their own in common
        raise FormUnavailable(f"ONNX Runtime cannot run it: {str(error).partition(chr(10))[0]}") from error


def require_export_extra() -> None:
    """Refuse to go on without the packages of the ONNX forms.

    Raises:
        PredactError: One is missing; the message names the extra.
    """
    missing = [package for package in EXPORT_PACKAGES if find_spec(package) is None]
    if missing:
        raise PredactError(f"ONNX needs {' and '.join(missing)}: pip install 'predact[export]'")


def quantized_module(network: nn.Module, kinds: set[type[nn.Module]]) -> nn.Module:
    """Return a copy with int8 weights in all layers of these kinds, activations quantised as they come.

    Raises:
        FormUnavailable: This torch has no dynamic quantisation, or none for this processor.
    """
    quantize: Callable[..., nn.Module] | None = getattr(
        getattr(getattr(torch, "ao", None), "quantization", None), "quantize_dynamic", None
    )
    if quantize is None:
        raise FormUnavailable(f"torch {torch.__version__} has no quantize_dynamic")
    if not {*torch.backends.quantized.supported_engines} - {"none"}:
        raise FormUnavailable("torch has no int8 kernels for this processor")
    with _silenced(QUANTIZE_WARNINGS):
        try:
            return quantize(network, kinds, dtype=torch.qint8)
        except (RuntimeError, NotImplementedError, AttributeError) as error:
            raise FormUnavailable(f"quantize_dynamic fails: {str(error).partition(chr(10))[0]}") from error


def onnx_graph(network: ForecastNetwork, *, channels: int) -> bytes:
    """Return the whole network as an ONNX file: `inputs`, (batch, C, L), to `point` and, if it has them, `quantiles`.

    Raises:
        FormUnavailable: This torch has no exporter that keeps an LSTM as one node.
    """
    import onnx

    outputs = ["point", "quantiles"] if network.levels else ["point"]
    example = torch.zeros(2, channels, network.look_back)
    with tempfile.TemporaryDirectory() as folder, _silenced(EXPORT_WARNINGS), torch.inference_mode():
        path = Path(folder) / "float.onnx"
        try:
            torch.onnx.export(
                serving_graph(network),
                (example,),
                path,
                # The newer exporter freezes sizes that ONNX Runtime's quantiser then finds to disagree.
                dynamo=False,
                opset_version=OPSET,
                input_names=["inputs"],
                output_names=outputs,
                dynamic_axes={name: {0: "batch"} for name in ["inputs", *outputs]},
            )
        except (TypeError, AttributeError, RuntimeError) as error:
            reason = str(error).partition("\n")[0]
            raise FormUnavailable(f"torch {torch.__version__} cannot export it to ONNX: {reason}") from error
        model = onnx.load(path)
    for node in model.graph.node:
        if node.op_type == "LSTM":
            # The initial state is zero, which is what ONNX takes where none is given.
            del node.input[4:]
    _drop_unused(model.graph)
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content


def int8_graph(graph: bytes) -> bytes:
    """Return an ONNX file with int8 weights in its LSTM and linear layers, made by ONNX Runtime.

    The products with the ridge's matrix and with the sums of quantile steps stay float: in int8 they take as long, and
    the ridge, which adds up hundreds of values that are rounded together, would make most of the error.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as folder:
        source, prepared, target = (Path(folder) / name for name in ("float.onnx", "prepared.onnx", "int8.onnx"))
        source.write_bytes(graph)
        quant_pre_process(source, prepared, skip_optimization=True, skip_symbolic_shape=True)
        kept = [node.name for node in onnx.load(prepared).graph.node if KEPT_FLOAT & {*node.input}]
        quantize_dynamic(prepared, target, weight_type=QuantType.QInt8, nodes_to_exclude=kept)
        return target.read_bytes()


def serving_graph(network: ForecastNetwork) -> nn.Module:
    """Return a module that computes the same with fewer operations, for export only; a plain wrapper where none is."""
    inner = network.network.network
    return (_Fused(network, inner) if isinstance(inner, SegmentLSTM) else _Plain(network)).eval()


class _Plain(nn.Module):
    """Returns a tuple without the None that an ONNX graph cannot return."""

    def __init__(self, network: ForecastNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, inputs: Tensor) -> tuple[Tensor, ...]:
        output = self.network(inputs)
        return (output.point,) if output.quantiles is None else (output.point, output.quantiles)


class _Fused(nn.Module):
    """Segment LSTM, ridge and blend with the blend's weights folded into those of both.

    With c, s the centre and scale of a window, w the blend's weights, h the LSTM's last state, P, p its point head, R
    the ridge's matrix and r its centre: point = s (h (w P) + w p) + w c + (x - r) ((1 - w) R) + (1 - w) r. Quantiles
    stand around the point, whatever it is: point + s softplus(h Q + q) T, where T adds up the steps above the median,
    and takes those below it away.
    """

    own: Tensor
    other: Tensor
    matrix: Tensor
    head: Tensor
    bias: Tensor
    spread: Tensor
    spread_bias: Tensor
    quantile_steps: Tensor

    def __init__(self, network: ForecastNetwork, lstm: SegmentLSTM) -> None:
        super().__init__()
        self.look_back, self.horizon, self.config = network.look_back, network.horizon, lstm.config
        self.embed = lstm.embed
        # Segments lie first, so that the graph turns the raw values around and not the hidden states.
        self.lstm = nn.LSTM(lstm.config.hidden_dim, lstm.config.hidden_dim, lstm.config.num_layers)
        self.lstm.load_state_dict(lstm.lstm.state_dict())
        weights = torch.ones(self.horizon) if network.weights is None else network.weights.detach()
        self.register_buffer("own", weights)
        self.register_buffer("head", (lstm.point.weight * weights[:, None]).detach().T.contiguous())
        self.register_buffer("bias", (lstm.point.bias * weights).detach())
        self.ridge_centre: Centre | None = None
        if network.ridge is not None:
            self.ridge_centre = network.ridge.centre
            self.ridge_look_back = network.ridge.weight.shape[0]
            self.register_buffer("other", 1 - weights)
            self.register_buffer("matrix", network.ridge.weight * (1 - weights))
        self.has_quantiles, self.num_steps = bool(network.levels), len(network.levels) - 1
        if lstm.spread is not None:
            self.register_buffer("spread", lstm.spread.weight.detach().T.contiguous())
            self.register_buffer("spread_bias", lstm.spread.bias.detach())
            self.register_buffer("quantile_steps", _step_sums(network.levels))

    def forward(self, inputs: Tensor) -> tuple[Tensor, ...]:
        channels, config = inputs.shape[1], self.config
        own = latest(inputs, config.look_back, of=self.look_back)
        window = window_scale(own, config.normalization)
        num_segments = config.look_back // config.segment
        segments = window.apply(own).reshape(-1, num_segments, config.segment).transpose(0, 1)
        _, (state, _) = self.lstm(self.embed(segments).relu())
        last = state[-1]  # (B * C, D)
        point = torch.addmm(self.bias, last, self.head).reshape(-1, channels, self.horizon) * window.scale
        point = point + self.own * window.centre
        if self.ridge_centre is not None:
            past = latest(inputs, self.ridge_look_back, of=self.look_back)
            centre = window_scale(past, self.ridge_centre).centre
            point = point + ((past - centre) @ self.matrix + self.other * centre)
        if not self.has_quantiles:
            return (point,)
        if self.num_steps == 0:
            return point, point.unsqueeze(-1)
        raw = torch.addmm(self.spread_bias, last, self.spread)
        # Softplus by parts that ONNX Runtime has fast code for; its own takes as long as an LSTM. No step is that long.
        steps = torch.log(1 + torch.exp(raw.clamp(max=80.0)))
        steps = steps.reshape(-1, channels, self.horizon, self.num_steps) @ self.quantile_steps
        return point, steps * window.scale.unsqueeze(-1) + point.unsqueeze(-1)


def _step_sums(levels: tuple[float, ...]) -> Tensor:
    """Return (Q - 1, Q): which steps, and with which sign, lie between the median and each quantile."""
    median = levels.index(MEDIAN)
    sums = torch.zeros(len(levels) - 1, len(levels))
    for row in range(median):
        sums[row, : row + 1] = -1.0
    for row in range(median, len(sums)):
        sums[row, row + 1 :] = 1.0
    return sums


def _session(graph: bytes, *, batch_size: int | None) -> InferenceSession:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    if batch_size is not None:
        options.add_free_dimension_override_by_name("batch", batch_size)
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def _drop_unused(graph: Any) -> None:
    """Remove nodes whose outputs nobody reads, such as those that made up an initial state."""
    wanted = {output.name for output in graph.output}
    kept = []
    for node in reversed(graph.node):
        if wanted & {*node.output}:
            kept.append(node)
            wanted |= {*node.input}
    del graph.node[:]
    graph.node.extend(reversed(kept))


@contextmanager
def _silenced(known: tuple[KnownWarning, ...]) -> Iterator[None]:
    with warnings.catch_warnings():
        for message, category, module in known:
            warnings.filterwarnings("ignore", message=message, category=category, module=module)
        yield
