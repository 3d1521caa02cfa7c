//! The contract that every driver keeps, kept by this one.

use crate::{
    driver_contract::driver_contract,
    lab::{PATIENCE, tiny},
    lab_or_skip,
};

#[tokio::test]
async fn the_qemu_driver_keeps_the_contract() {
    let lab = lab_or_skip!();
    driver_contract(lab.shared(), tiny(), PATIENCE).await;
}
