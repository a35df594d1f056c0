"""Rankwise: rebuild a paper's whole result set on efficient fine-tuning."""
