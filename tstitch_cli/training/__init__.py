"""How denoisers are trained and finetuned; imported by `tstitch train` and `finetune` alone."""
