"""Tilewright: write NumPy, get a cycle-exact program for a systolic-array accelerator."""
