"""All cases of the corpus, in the order of their kinds: importing this module registers them."""

from tests.corpus import (
    archives,
    checkpoints,
    clouds,
    command_lines,
    configs,
    folders,
    gltf,
    json_scenes,
    meshes,
    outputs,
    photographs,
    pickles,
    poses,
    registry,
    runs,
    terminals,
)

KINDS = (poses, photographs, json_scenes, configs, command_lines, outputs, checkpoints, runs, meshes, gltf, clouds)
KINDS += (pickles, archives, folders, terminals)
CASES = registry.CASES
