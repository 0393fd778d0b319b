"""One client per outside service: its wire format, its limits, its errors made ours."""
