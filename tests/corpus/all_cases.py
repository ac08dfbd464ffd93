"""All cases of the corpus, in the order of their kinds: importing this module registers them."""

from tests.corpus import (
    archives,
    caches,
    camera_paths,
    captures,
    checkpoints,
    clouds,
    colmap_models,
    command_lines,
    configs,
    conversions,
    folders,
    gltf,
    json_scenes,
    meshes,
    outputs,
    photographs,
    pickles,
    poses,
    presentations,
    registry,
    runs,
    scene_folders,
    sweeps,
    terminals,
    transforms_files,
    volumes,
)

KINDS = (poses, photographs, json_scenes, configs, command_lines, outputs, checkpoints, runs, meshes, gltf, clouds)
KINDS += (pickles, archives, folders, terminals, colmap_models, transforms_files, scene_folders, conversions, captures)
KINDS += (camera_paths, presentations, volumes, sweeps, caches)
CASES = registry.CASES
