"""tilewright.isa"""
