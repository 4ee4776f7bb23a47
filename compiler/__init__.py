"""tilewright.compiler"""
