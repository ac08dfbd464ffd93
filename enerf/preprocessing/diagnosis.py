"""Why structure from motion failed, or left photographs out: one sentence, from matches and models.

The signatures: no pair has matches that a geometry verifies; all verified pairs follow a homography, and their matches
stay in place (the camera did not move) or move (it turned on the spot, or sees something flat); pairs fall into groups
that share nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64

from enerf.core.image_files import some  # imports the standard library only, as does this module but for numpy

FLAT = (4, 5, 6)  # COLMAP's numbers of PLANAR, PANORAMIC, PLANAR_OR_PANORAMIC
DEEP = (2, 7, 3)  # CALIBRATED, CALIBRATED_RIG, UNCALIBRATED
LEAST_MATCHES = 15
STILL = 0.002  # of the image's longer side: what matches move by if the camera does not
PARALLAX = 0.01  # distance of cameras from their mean, in depths, below which a model is one of noise
UNDETERMINED = 0.1  # relative deviation of a focal length
MOSTLY = 0.9  # share of the verified pairs
FEW_KEY_POINTS = 50


@dataclass(frozen=True)
class Matches:
    """Result of the matching.

    Attributes
    ----------
    names
        Names of the photographs.
    longest
        Longer side of each, in pixels.
    features
        Number of key points of each.
    pairs
        Rows: index, index, configuration by COLMAP's number, matches, median distance of matches in pixels.
    are_masked
        Whether photographs have masks.
    """

    names: Sequence[str]
    longest: Sequence[int]
    features: Sequence[int]
    pairs: Float64[np.ndarray, "p 5"]
    are_masked: bool = False

    @property
    def verified(self) -> Float64[np.ndarray, "p2 5"]:
        """Pairs with enough matches of a known geometry."""
        known = np.isin(self.pairs[:, 2], FLAT + DEEP) & (self.pairs[:, 3] >= LEAST_MATCHES)
        return self.pairs[known]

    def groups(self) -> list[list[int]]:
        """Photographs that are connected by verified pairs, the largest group first."""
        parent = list(range(len(self.names)))

        def root(i: int) -> int:
            while parent[i] != i:
                parent[i] = parent[parent[i]]
                i = parent[i]
            return i

        for i, j in self.verified[:, :2].astype(int).tolist():
            parent[root(i)] = root(j)
        found: dict[int, list[int]] = {}
        for i in range(len(self.names)):
            found.setdefault(root(i), []).append(i)
        return sorted(found.values(), key=lambda members: (-len(members), members))

    @property
    def flat_share(self) -> float:
        """Share of the verified pairs that follow a homography; 0 if there are none."""
        verified = self.verified
        return float(np.isin(verified[:, 2], FLAT).mean()) if len(verified) else 0.0

    @property
    def motion(self) -> float:
        """Median over the verified pairs of the distance that matches move by, as a part of the longer side."""
        verified = self.verified
        sides = np.array(self.longest, dtype=np.float64)[verified[:, 0].astype(int)]
        return float(np.median(verified[:, 4] / sides)) if len(verified) else 0.0


def failure(source: str, matches: Matches, models: Sequence[Sequence[int]], *, is_at_one_point: bool = False) -> str:
    """Why there is no model, as a message.

    Parameters
    ----------
    source
        The input; begins the message.
    matches
        Result of the matching.
    models
        Photographs and points of the models that were built.
    is_at_one_point
        Whether the cameras of the best model are at one point.
    """
    no_depth = _no_depth(matches) if is_at_one_point or matches.flat_share >= MOSTLY else None
    found, expected = _nothing_matches(matches) or no_depth or _not_together(matches, models)
    return f"{source}: found {found}, expected {expected}"


_Finding = tuple[str, str]  # what was found, what was expected


def is_of_noise(matches: Matches, details: Mapping[str, Any]) -> bool:
    """Whether a model explains photographs from one point by errors of the matches.

    Its cameras are at one point, compared with the distance of the points; or nearly all pairs follow a homography and
    the focal length is not determined, since any focal length goes with some motion then.

    Parameters
    ----------
    matches
        Result of the matching.
    details
        ``parallax`` of the model, and its ``cameras`` with ``focal`` and ``focal_deviation``.
    """
    undetermined = all(
        camera["focal_deviation"] is None or camera["focal_deviation"] > UNDETERMINED * camera["focal"]
        for camera in details["cameras"]
    )
    return bool(details["parallax"] < PARALLAX or (matches.flat_share >= MOSTLY and undetermined))


def _nothing_matches(matches: Matches) -> _Finding | None:
    """No pair is verified."""
    if len(matches.verified):
        return None
    usual = int(np.median(matches.features))
    if usual < FEW_KEY_POINTS and matches.are_masked:
        return (
            f"almost no key points at pixels that the masks use (usually {max(0, usual)})",
            "masks that are zero only where photographs are to be ignored (--invert_masks: the other way round)",
        )
    if usual < FEW_KEY_POINTS:
        return (
            f"almost no detail in the photographs (usually {max(0, usual)} key points)",
            "sharp ones of textured things",
        )
    return (
        f"no two of the {len(matches.names)} photographs that show the same things",
        "overlapping photographs of one place",
    )


def _no_depth(matches: Matches) -> _Finding:
    """The camera stayed in its place."""
    if matches.motion < STILL:
        return (
            "photographs from one place in one direction: the camera did not move",
            "photographs from different places, since no depth can be computed from these",
        )
    return (
        "photographs between which the camera turned on the spot (or that show one flat thing alone)",
        "ones from different places: step sideways between them",
    )


def _not_together(matches: Matches, models: Sequence[Sequence[int]]) -> _Finding:
    """Groups that share nothing; or else too little overlap."""
    groups = matches.groups()
    if len(groups[0]) < 3:
        linked = [" with ".join(matches.names[i] for i in members) for members in groups if len(members) > 1]
        return (
            f"photographs that do not belong together (only {some(linked)} show the same things)",
            "at least three of the same things",
        )
    if max((size for size, points in models if points), default=0) == 2:
        return "two photographs that fit together, which are not enough here", "at least three"
    count = len(matches.verified)
    return (
        f"matches in {count} pairs of the {len(matches.names)} photographs, but no pair to begin with",
        "more photographs from places a step apart, with more overlap",
    )


def left_out(matches: Matches, registered: Sequence[int]) -> dict[str, str]:
    """Photographs that are not in the model, by name, with the reason."""
    within = set(registered)
    linked = {i for members in matches.groups() if within & set(members) for i in members}
    found: dict[str, str] = {}
    for i, name in enumerate(matches.names):
        if i in within:
            continue
        if matches.features[i] < 0:
            found[name] = "COLMAP cannot read the file"
        elif matches.features[i] == 0:
            found[name] = "no key points: blank, blurred, or masked as a whole"
        elif i not in linked:
            found[name] = "shows nothing that the others show"
        else:
            found[name] = "too few matches with the others"
    return found


def warning(source: str, matches: Matches, registered: Sequence[int]) -> str:
    """Which photographs are not in the model, as one sentence for the log; empty if all are."""
    reasons = left_out(matches, registered)
    if not reasons:
        return ""
    by_reason: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        by_reason.setdefault(reason, []).append(name)
    texts = [f"{some(names)} ({reason})" for reason, names in by_reason.items()]
    return f"{source}: {len(registered)} of {len(matches.names)} photographs are registered, not {'; '.join(texts)}"
