"""Few-shot adaptation: corrected cases in, a LoRA adapter and an honest before and after out.

Import from the files themselves; the case library and the adapter folders must not wait for torch:

- `case_library`: corrected masks with their volumes, on disk
- `adapter`, `adapter_store`: adapter folders, listed, renamed, exported, imported
- `lora`: the low-rank weights in the model and out of it
- `adapt`: the training from cases to adapter
"""
