"""tilewright.sim"""
