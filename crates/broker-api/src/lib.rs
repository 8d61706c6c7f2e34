//! The protocol-neutral API of the broker: plain data and one Broker trait.
