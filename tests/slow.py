"""Which tests `pytest -m "not slow"` leaves out, besides those with a mark of their own.

What is left takes under two minutes on two cores. CI runs everything.
"""

SLOW = {
    "the real model in processes of its own": (
        "examples checkpoint/test_real_model.py test_parity.py test_same_tokens.py test_soak.py "
        "packaging/test_current_folder.py packaging/test_install.py"
    ),
    "every shape and dtype of each kernel": "kernels",
    "the emulated GPU": "engine/test_gpu_engine.py device/test_cuda_device.py device/test_nccl.py",
    "MPI": (
        "distributed/test_architectures.py distributed/test_engine.py "
        "distributed/test_failures.py distributed/test_group.py"
    ),
    "servers, pip and compilers": (
        "checkpoint/test_hub.py checkpoint/test_resolve.py device/test_cpu.py device/test_store.py"
    ),
    "event loops under load": "engine/test_loop_lag.py",
    "many formats, architectures, configurations or templates": (
        "core/test_against_mlx.py checkpoint/test_gguf_architectures.py "
        "checkpoint/test_mlx_folders.py checkpoint/test_packings.py checkpoint/test_quantise.py "
        "checkpoint/test_safetensors.py engine/test_speculation.py models/test_architectures.py "
        "models/test_shard.py text/test_chat_differential.py text/test_long_text.py "
        "text/test_sandbox.py"
    ),
}
"""Files and folders of tests, by what takes the time."""
PLACES = [place for places in SLOW.values() for place in places.split()]
