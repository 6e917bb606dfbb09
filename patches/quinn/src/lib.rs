//! Empty. The embedded broker is built without QUIC, and so without the second crypto provider that QUIC brings.
