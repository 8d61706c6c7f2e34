//! scratch
fn main() {
    use varve_sim::torture::*;
    let full = std::env::args().nth(1).as_deref() == Some("full");
    let effort = if full {
        Effort::full(1)
    } else {
        Effort::bounded()
    };
    for w in workloads::all() {
        for f in if std::env::args().nth(2).is_some() {
            [faults::k8, faults::k9]
        } else {
            [enumerate::k1, enumerate::k7]
        } {
            let t0 = std::time::Instant::now();
            let t = f(w.as_ref(), effort);
            println!(
                "{} {} states {} refused {} viol {} {:?} {:?}",
                t.suite,
                t.name,
                t.states,
                t.refused,
                t.violations.len(),
                t.notes,
                t0.elapsed()
            );
            for v in t.violations.iter().take(2) {
                println!("{v}");
            }
        }
    }
}
