"""The precisions that are shipped, bfloat16 weights that are frozen, float32 LoRA and bf16-mixed, on two processes beside one; and a
model with a vision part. CPUs compute in bfloat16 too.
"""
