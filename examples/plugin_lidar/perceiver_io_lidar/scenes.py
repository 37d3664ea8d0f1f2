"""Scenes that are made up: one object on flat ground, scanned beam by beam. Shape legend: R rays, P points."""

import numpy as np

from perceiver_io.data import LabelledRows

# The boxes that an object is made of: length, width, bottom and top, in metres.
KINDS = {
    "car": [(4.4, 1.8, 0.2, 0.9), (2.2, 1.6, 0.9, 1.5)],
    "lorry": [(6.5, 2.4, 0.4, 2.6), (4.5, 2.4, 2.6, 3.2)],
    "cyclist": [(1.7, 0.1, 0.0, 1.0), (0.4, 0.5, 0.9, 1.7)],
    "pedestrian": [(0.3, 0.5, 0.0, 1.5), (0.2, 0.2, 1.5, 1.75)],
    "post": [(0.2, 0.2, 0.0, 3.0)],
}
HEIGHT = 1.8  # of the sensor above the ground


def sweep(kind: str, rng: np.random.Generator) -> np.ndarray:
    """Scans an object that stands anyhow, 5 to 12 m away: (P, 4) of x, y, z in metres and the intensity."""
    around, up = np.meshgrid(np.radians(np.arange(-20, 21)), np.radians(np.linspace(-14, 6, 12)))
    rays_R3 = np.stack([np.cos(up) * np.cos(around), np.cos(up) * np.sin(around), np.sin(up)], -1).reshape(
        -1, 3
    )
    distance_R = HEIGHT / np.maximum(-rays_R3[:, 2], 1e-9)  # to the ground
    intensity_R = np.full(len(rays_R3), rng.uniform(0.1, 0.5))
    place = np.array([rng.uniform(5, 12), rng.uniform(-1, 1), -HEIGHT])
    cos, sin = np.cos(angle := rng.uniform(0, 2 * np.pi)), np.sin(angle)
    turn = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])  # from the object's axes to the sensor's
    for length, width, bottom, top in KINDS[kind]:
        faces = np.array([[-length / 2, -width / 2, bottom], [length / 2, width / 2, top]])
        crossings_2R3 = (faces[:, None] + place @ turn) / (rays_R3 @ turn)
        enters_R, leaves_R = crossings_2R3.min(0).max(-1), crossings_2R3.max(0).min(-1)
        hit_R = (0 < enters_R) & (enters_R < leaves_R) & (enters_R < distance_R)
        distance_R = np.where(hit_R, enters_R, distance_R)
        intensity_R = np.where(hit_R, rng.uniform(0.1, 0.9), intensity_R)
    returns_R = (distance_R < 20) & (rng.random(len(rays_R3)) < 0.9)  # some are lost
    distance_R = distance_R + rng.normal(0, 0.02, len(rays_R3))
    return np.column_stack([rays_R3 * distance_R[:, None], intensity_R])[returns_R].astype(np.float32)


def street() -> LabelledRows:
    """Returns 400 sweeps of each kind of object."""
    rng = np.random.default_rng(0)
    rows = [
        {"lidar": sweep(kind, rng), "label": label} for label, kind in enumerate(KINDS) for _ in range(400)
    ]
    return LabelledRows(rows, list(KINDS))
