"""What a network takes on a device, for any formats of its layers, from the profiles of a few builds."""
