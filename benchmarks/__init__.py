"""What the library costs, against the clients it competes with."""
