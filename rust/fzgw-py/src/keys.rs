//! WireGuard keys.

use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;

/// A new private key: 32 bytes from the system's randomness, clamped as Curve25519 wants it.
#[pyfunction]
pub(crate) fn generate_private_key() -> PyResult<[u8; 32]> {
    fzgw_core::peers::generate_private_key().map_err(|error| PyOSError::new_err(error.to_string()))
}

/// The public key of a private key, 32 bytes each.
#[pyfunction]
pub(crate) fn public_key(private_key: [u8; 32]) -> [u8; 32] {
    fzgw_core::peers::public_key(&private_key)
}
