//! Figures: a table for people while it goes, one line of JSON each for programs.

use std::{
    fs::File,
    io::{self, BufWriter, Write as _},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use serde::Serialize;

/// What a figure should be.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Target {
    /// Smaller than this.
    Below(f64),
    /// At least this.
    AtLeast(f64),
    /// Nothing: it is there to compare with.
    None,
}

impl Target {
    fn is_met_by(self, value: f64) -> Option<bool> {
        match self {
            Self::Below(limit) => Some(value < limit),
            Self::AtLeast(limit) => Some(value >= limit),
            Self::None => None,
        }
    }

    fn text(self) -> Option<String> {
        match self {
            Self::Below(limit) => Some(format!("< {}", number(limit))),
            Self::AtLeast(limit) => Some(format!(">= {}", number(limit))),
            Self::None => None,
        }
    }
}

#[derive(Serialize)]
struct Line<'a> {
    name: &'a str,
    /// `null` when the row could not be measured.
    value: Option<f64>,
    unit: &'a str,
    target: Option<String>,
    ok: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// Where rows put their figures.
#[derive(Debug)]
pub(crate) struct Report {
    file: BufWriter<File>,
    path: PathBuf,
    met: usize,
    missed: Vec<String>,
    figures: Vec<(String, f64, &'static str)>,
}

impl Report {
    /// Starts a new file.
    pub(crate) fn create(path: &Path) -> anyhow::Result<Self> {
        let file =
            File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self {
            file: BufWriter::new(file),
            path: path.to_owned(),
            met: 0,
            missed: Vec::new(),
            figures: Vec::new(),
        })
    }

    /// A row begins.
    pub(crate) fn begin(&self, name: &str, about: &str) -> anyhow::Result<()> {
        writeln!(io::stdout(), "\n{name}: {about}")?;
        Ok(())
    }

    /// Something to know when reading the figures.
    pub(crate) fn note(&self, text: &str) -> anyhow::Result<()> {
        writeln!(io::stdout(), "  ({text})")?;
        Ok(())
    }

    /// One figure.
    pub(crate) fn figure(
        &mut self,
        name: &str,
        value: f64,
        unit: &'static str,
        target: Target,
    ) -> anyhow::Result<()> {
        self.figures.push((name.to_owned(), value, unit));
        let ok = target.is_met_by(value);
        match ok {
            Some(true) => self.met += 1,
            Some(false) => self.missed.push(name.to_owned()),
            None => {}
        }
        let verdict = match ok {
            Some(true) => "ok",
            Some(false) => "MISSED",
            None => "",
        };
        let target = target.text();
        writeln!(
            io::stdout(),
            "  {name:<44} {value:>10} {unit:<5} {target:>12}  {verdict}",
            value = number(value),
            target = target.as_deref().unwrap_or_default(),
        )?;
        self.write(&Line {
            name,
            value: value.is_finite().then_some(value),
            unit,
            target,
            ok,
            error: None,
        })
    }

    /// The figures of a row that was measured at several sizes, side by side. Figures of a size are named
    /// `row/size/what`.
    pub(crate) fn side_by_side(&self, row: &str, sizes: &[u64]) -> anyhow::Result<()> {
        let mut out = io::stdout().lock();
        let mut names: Vec<(&str, &str)> = Vec::new();
        for (name, _, unit) in &self.figures {
            let what = sizes
                .iter()
                .find_map(|size| name.strip_prefix(&format!("{row}/{size}/")));
            if let Some(what) = what
                && !names.iter().any(|(known, _)| *known == what)
            {
                names.push((what, unit));
            }
        }
        write!(out, "\n  {row:<34}")?;
        for size in sizes {
            write!(out, " {size:>10}")?;
        }
        writeln!(out)?;
        for (what, unit) in names {
            write!(out, "  {what:<34}")?;
            for size in sizes {
                let name = format!("{row}/{size}/{what}");
                let found = self.figures.iter().find(|(known, ..)| *known == name);
                let value = found.map_or(f64::NAN, |(_, value, _)| *value);
                write!(out, " {:>10}", number(value))?;
            }
            writeln!(out, " {unit}")?;
        }
        Ok(())
    }

    /// A row could not be measured.
    pub(crate) fn failed(&mut self, name: &str, error: &anyhow::Error) -> anyhow::Result<()> {
        self.missed.push(name.to_owned());
        writeln!(io::stdout(), "  {name}: not measured: {error:#}")?;
        self.write(&Line {
            name,
            value: None,
            unit: "",
            target: None,
            ok: Some(false),
            error: Some(format!("{error:#}")),
        })
    }

    fn write(&mut self, line: &Line<'_>) -> anyhow::Result<()> {
        serde_json::to_writer(&mut self.file, line)?;
        self.file.write_all(b"\n")?;
        self.file.flush()?;
        Ok(())
    }

    /// The last words.
    pub(crate) fn finish(self) -> anyhow::Result<()> {
        let mut out = io::stdout().lock();
        writeln!(
            out,
            "\n{} targets met, {} missed",
            self.met,
            self.missed.len()
        )?;
        for name in &self.missed {
            writeln!(out, "  missed: {name}")?;
        }
        writeln!(out, "{}", self.path.display())?;
        Ok(())
    }
}

/// Three significant digits, or whole numbers.
fn number(value: f64) -> String {
    match value.abs() {
        size if !size.is_finite() => "-".to_owned(),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}
