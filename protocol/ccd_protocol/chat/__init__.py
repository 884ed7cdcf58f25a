"""What a chat may say, whoever asks it: parameters, profile and model, history. Pure, and shared by all sides.

Begin with `parameters`, the one table of them. How a call travels is not here but in the modules above this room.
"""
