"""tilewright.hw"""
