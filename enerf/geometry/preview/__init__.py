"""Pictures of meshes and fields: cameras, ray casting, sphere tracing, turntables."""
