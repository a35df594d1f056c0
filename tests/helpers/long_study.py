"""A study of one training run that is long enough to be interrupted, and to be looked at."""

LONG_STUDY = {
    "device": "cpu",
    "environment": "cpu",
    "cpu_threads": 1,
    "schedule": {
        "updates": 900,
        "batch_size": 8,
        "eval_batch_size": 200,
        "evaluate_every_updates": 50,
    },
    "train": [
        {
            "models": ["tiny"],
            "datasets": ["generated_reviews"],
            "methods": ["lora"],
            "ranks": [4],
            "seeds": [0],
        }
    ],
}
