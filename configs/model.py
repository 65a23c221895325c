"""Named detectors and forecasters."""

from __future__ import annotations

from hydra_zen import store

from configs._named import named
from predact.detection.gat import GATConfig
from predact.detection.vgae import VGAEConfig
from predact.forecasting.dlinear import DLinearConfig
from predact.forecasting.lstm import SegmentLSTMConfig
from predact.forecasting.plain import PlainLSTMConfig

model = store(group="model")

model(named(GATConfig), name="gat")
model(named(GATConfig, num_layers=3, head_width=40, readout_width=128), name="gat_large")
model(named(VGAEConfig), name="vgae")
model(named(VGAEConfig, latent_dim=48, head_width=64, decoder_width=256), name="vgae_large")
model(named(SegmentLSTMConfig), name="lstm_segment")
model(named(SegmentLSTMConfig, hidden_dim=64), name="lstm_segment_small")
model(named(SegmentLSTMConfig, hidden_dim=256), name="lstm_segment_large")
model(named(PlainLSTMConfig), name="lstm_plain")
model(named(DLinearConfig), name="dlinear")
