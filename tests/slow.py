"""Which tests `pytest -m "not slow"` leaves out, besides those with a mark of their own.

What is left takes under two minutes on two cores. CI runs everything.
"""

SLOW = {
    "the real model in processes of its own": (
        "examples checkpoint/test_real_model.py test_parity.py test_same_tokens.py test_soak.py "
        "packaging/test_current_folder.py packaging/test_install.py"
    ),
    "the emulated GPU": (
        "kernels/cuda engine/test_gpu_engine.py device/test_cuda_device.py device/test_nccl.py"
    ),
    "MPI": (
        "distributed/test_architectures.py distributed/test_engine.py "
        "distributed/test_failures.py distributed/test_group.py kernels/test_collective.py"
    ),
    "servers, pip and compilers": (
        "checkpoint/test_hub.py checkpoint/test_resolve.py device/test_cpu.py device/test_store.py"
    ),
    "many shapes, formats, architectures or templates": (
        "kernels/test_linear.py kernels/test_paged_attention.py core/test_against_mlx.py "
        "checkpoint/test_gguf_architectures.py checkpoint/test_mlx_folders.py "
        "checkpoint/test_packings.py checkpoint/test_quantise.py checkpoint/test_safetensors.py "
        "engine/test_speculation.py models/test_architectures.py text/test_chat_differential.py"
    ),
}
"""Files and folders of tests, by what takes the time."""
PLACES = [place for places in SLOW.values() for place in places.split()]
