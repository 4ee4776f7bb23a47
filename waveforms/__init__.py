"""tilewright.waveforms"""
