//! Stillpoint's engine beside other engines, on the same graphs of steps that do nothing. See `README.md`.
#![allow(clippy::disallowed_methods, reason = "a bench reads the real clock and spawns by itself")]

mod case;
mod engines;
mod shapes;

use case::{Failed, Times, here, in_child};
use engines::dagrs::Dagrs;
use engines::steno::Steno;
use engines::stillpoint::Stillpoint;
use shapes::SHAPES;

const ENGINES: [&str; 3] = ["stillpoint", "dagrs", "steno"];
const SIZES: [usize; 3] = [1_000, 10_000, 100_000];

/// How often each case has a process.
const ROUNDS: usize = 3;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        [] => tables(),
        ["case", engine, shape, steps] => {
            let steps = steps.parse().unwrap();
            match engine {
                "stillpoint" => here::<Stillpoint>(shape, steps),
                "dagrs" => here::<Dagrs>(shape, steps),
                "steno" => here::<Steno>(shape, steps),
                other => panic!("no engine {other}"),
            }
        }
        _ => panic!("usage: stillpoint-peers [case ENGINE SHAPE STEPS]"),
    }
}

/// Prints them as they come.
fn tables() {
    let mut builds = Vec::new();
    println!("| shape | steps | bare task | {} |", ENGINES.join(" | "));
    println!("|---|---|---|{}", "---|".repeat(ENGINES.len()));
    for (shape, _) in SHAPES {
        for steps in SIZES {
            let all = row(shape, steps);
            let bare =
                all.iter().flatten().map(|times| times.bare).min_by(f64::total_cmp).unwrap_or(0.0);
            let runs = all.iter().map(|result| {
                cell(result, |times| {
                    format!("{} ({:.1}×)", micros(times.run), times.run / times.bare)
                })
            });
            println!(
                "| {shape} | {steps} | {bare:.2} | {} |",
                runs.collect::<Vec<_>>().join(" | ")
            );
            let build = all.iter().map(|result| cell(result, |times| micros(times.build)));
            builds
                .push(format!("| {shape} | {steps} | {} |", build.collect::<Vec<_>>().join(" | ")));
        }
    }
    println!("\nTo build the graph:\n\n| shape | steps | {} |", ENGINES.join(" | "));
    println!("|---|---|{}", "---|".repeat(ENGINES.len()));
    println!("{}", builds.join("\n"));
}

/// The best of some rounds for each engine, in turns; what failed once is not asked again.
fn row(shape: &str, steps: usize) -> Vec<Result<Times, Failed>> {
    let mut all: Vec<Option<Result<Times, Failed>>> = vec![None; ENGINES.len()];
    for _ in 0..ROUNDS {
        for (engine, so_far) in ENGINES.iter().zip(&mut all) {
            *so_far = Some(match so_far.take() {
                Some(Err(failed)) => Err(failed),
                Some(Ok(best)) => in_child(engine, shape, steps).map(|times| best.or(times)),
                None => in_child(engine, shape, steps),
            });
        }
    }
    all.into_iter().flatten().collect()
}

fn cell(result: &Result<Times, Failed>, say: impl Fn(&Times) -> String) -> String {
    match result {
        Ok(times) => say(times),
        Err(Failed::Slow) => "over a minute".to_owned(),
        Err(Failed::Stack) => "stack overflow".to_owned(),
        Err(Failed::Other(said)) => {
            eprintln!("{said}");
            "failed".to_owned()
        }
    }
}

fn micros(time: f64) -> String {
    if time < 100.0 { format!("{time:.1}") } else { format!("{time:.0}") }
}
