//! Tables for people: columns as wide as their widest cell, two spaces between, no lines.
//!
//! Colour codes take no width; the last column is not padded.

use crate::printer::{Paint, Printer};

/// A table under construction.
pub(crate) struct Table {
    head: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

/// One cell.
pub(crate) struct Cell {
    text: String,
    paint: Paint,
}

impl Table {
    /// A table with these column heads.
    pub(crate) fn new(head: &[&'static str]) -> Self {
        Self {
            head: head.to_vec(),
            rows: Vec::new(),
        }
    }

    /// Adds a row; it has as many cells as there are columns.
    pub(crate) fn row(&mut self, cells: Vec<Cell>) {
        debug_assert_eq!(cells.len(), self.head.len(), "a cell for every column");
        self.rows.push(cells);
    }

    /// Writes it as data.
    pub(crate) fn print(&self, printer: &Printer) {
        let widths: Vec<usize> = (0..self.head.len())
            .map(|column| self.width(column))
            .collect();
        let head: Vec<String> = self.head.iter().map(|text| (*text).to_owned()).collect();
        printer.data(&line(&head, &widths, |_, text| text.to_owned()));
        for row in &self.rows {
            let texts: Vec<String> = row.iter().map(|cell| cell.text.clone()).collect();
            let paint = |column: usize, text: &str| printer.paint(row[column].paint, text);
            printer.data(&line(&texts, &widths, paint));
        }
    }

    fn width(&self, column: usize) -> usize {
        let cells = self.rows.iter().map(|row| row[column].text.chars().count());
        cells.chain([self.head[column].len()]).max().unwrap_or(0)
    }
}

fn line(texts: &[String], widths: &[usize], paint: impl Fn(usize, &str) -> String) -> String {
    let mut line = String::new();
    for (column, text) in texts.iter().enumerate() {
        line.push_str(&paint(column, text));
        if column + 1 < texts.len() {
            let gap = widths[column].saturating_sub(text.chars().count()) + 2;
            line.extend(std::iter::repeat_n(' ', gap));
        }
    }
    line.trim_end().to_owned()
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        let text: String = text.into();
        let text = if text.is_empty() {
            "-".to_owned()
        } else {
            plain(&text)
        };
        Self {
            text,
            paint: Paint::Plain,
        }
    }
}

/// Text as one line that a terminal shows and does not obey: strangers choose names, too.
pub(crate) fn plain(text: &str) -> String {
    text.replace(char::is_control, " ")
}

/// A cell with the colour that its state word means.
pub(crate) fn state(word: &str) -> Cell {
    Cell {
        paint: meaning(word),
        ..Cell::from(word)
    }
}

/// The colour of a state word.
pub(crate) fn meaning(word: &str) -> Paint {
    match word {
        "running" | "ready" | "finished" | "stopped" | "drained" | "scheduled" => Paint::Good,
        "failed" | "lost" | "degraded" | "gone" | "crash-looping" => Paint::Bad,
        _ => Paint::Busy,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_nothing_trails() {
        let widths = [6, 4];
        let plain = |_: usize, text: &str| text.to_owned();
        let texts = ["web".to_owned(), "up".to_owned()];
        assert_eq!(line(&texts, &widths, plain), "web     up");
        let coloured = |_: usize, text: &str| format!("<{text}>");
        assert_eq!(line(&texts, &widths, coloured), "<web>     <up>");
    }

    #[test]
    fn an_empty_cell_shows_as_a_dash_and_a_cell_is_one_line() {
        assert_eq!(Cell::from("").text, "-");
        assert_eq!(Cell::from("a\nb").text, "a b");
    }

    #[test]
    fn a_cell_tells_a_terminal_nothing() {
        let told = "a\u{1b}[2J\r\u{9b}31m\u{7}b";
        assert_eq!(Cell::from(told).text, "a [2J  31m b");
        assert_eq!(state(told).text, "a [2J  31m b");
    }
}
