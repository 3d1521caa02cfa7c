//! Lists of 100,000 VMs on 10,000 machines: what one request costs beyond the way there and back.
//!
//! `cargo bench --package batwa-master --bench lists`. A search is measured with the answers of its words kept, as
//! when somebody pages or follows, and without, as when somebody types.

use std::hint::black_box;

use batwa_master::measure::PretendedFleet;
use criterion::{Criterion, criterion_group, criterion_main};

fn lists(c: &mut Criterion) {
    let mut fleet = PretendedFleet::new(10_000, 10);
    for (name, q, sort) in [
        ("all/name", "", "name"),
        ("all/agent", "", "agent"),
        ("all/state", "", "state"),
        ("all/changed", "", "changed"),
        ("state", "state:suspended", "name"),
        ("agents", "agent:lab-12*", "name"),
        ("label", "label:env=prod -label:team=team-7", "name"),
        ("memory", "memory>4G", "memory"),
        ("word/few", "lab-4711", "name"),
        ("word/many", "vm-7", "name"),
        ("word/address", "10.1.17", "changed"),
        ("word/all", "ubuntu", "name"),
    ] {
        c.bench_function(name, |b| b.iter(|| black_box(fleet.page(q, sort))));
    }
    let mut typed = 0_usize;
    c.bench_function("typing", |b| {
        b.iter(|| {
            typed += 1;
            // Another word each time, so that no kept answer helps.
            black_box(fleet.page(&format!("10.1.{}", typed % 25_500), "name"))
        });
    });
    c.bench_function("counts", |b| {
        b.iter(|| black_box(fleet.page_with_counts("state:running")));
    });
    let mut number = 0;
    c.bench_function("change", |b| {
        b.iter(|| {
            number += 1;
            black_box(fleet.change(number))
        });
    });
}

criterion_group!(benches, lists);
criterion_main!(benches);
