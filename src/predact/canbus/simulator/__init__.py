"""A CAN bus one would believe: vehicles, their traffic, arbitration, attacks, and stand-ins of the public datasets."""

from predact.canbus.simulator.attacks import ATTACKS, AttackConfig
from predact.canbus.simulator.capture import CaptureConfig, SimulatedCapture, bus_load, simulate_capture
from predact.canbus.simulator.datasets import SIMULATOR_VERSION, simulate_dataset
from predact.canbus.simulator.recipes import RECIPES, Recipe, cook
from predact.canbus.simulator.vehicles import VEHICLES, Vehicle, VehicleConfig, build_vehicle, vehicle

__all__ = [
    "simulate_dataset",
    "simulate_capture",
    "SimulatedCapture",
    "CaptureConfig",
    "AttackConfig",
    "ATTACKS",
    "VehicleConfig",
    "Vehicle",
    "VEHICLES",
    "vehicle",
    "build_vehicle",
    "Recipe",
    "RECIPES",
    "cook",
    "bus_load",
    "SIMULATOR_VERSION",
]
