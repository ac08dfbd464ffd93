"""Neural fields: encoders, radiance and shape networks, initialization, and the backends that evaluate them."""
