"""Doubts about cameras that the report of a processed scene tells."""

from typing import Any

from enerf.preprocessing import scene_report


def report(**changes: Any) -> dict[str, Any]:
    camera = {
        "width": 400,
        "height": 300,
        "focal_length": 320.0,
        "focal_length_deviation": 1.0,
        "focal_length_exif": None,
        "focal_length_is_fixed": False,
        "photographs": ["a.jpg", "b.jpg"],
    }
    known = {
        "photographs": 2,
        "points_of": {"a.jpg": 500, "b.jpg": 400},
        "principal_point_is_refined": False,
        "options": {"principal_point": "auto"},
        "cameras": [camera],
    }
    return known | changes


def test_good_cameras_raise_no_doubt():
    assert scene_report.warnings(report()) == []


def test_photographs_with_few_points_are_named():
    (told,) = scene_report.warnings(report(points_of={"a.jpg": 500, "b.jpg": 34}))
    assert told == (
        "1 of 2 photographs show fewer than 100 points that others show too, so that their poses may be wrong: "
        "b.jpg (34); photographs between them and the others help"
    )
