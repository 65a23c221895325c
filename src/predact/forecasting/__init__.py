"""Forecasting: a segment LSTM beside a ridge, with intervals that keep their coverage."""
