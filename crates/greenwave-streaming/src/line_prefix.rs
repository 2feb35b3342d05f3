//! Removes the block-quote markers and indentation in front of each line of a code block.

/// Maximum number of block quotes and list items around a line, if a quote is among them.
pub(crate) const CONTAINERS_MAX: usize = 8;

/// The prefix that is removed from each line of content: a step for each container, then the
/// indentation of the fence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct LinePrefix {
    pub(crate) steps: [u8; CONTAINERS_MAX],
    pub(crate) columns: u8,
}

/// The step for a block-quote marker; other steps are columns.
pub(crate) const QUOTE: u8 = u8::MAX;

impl LinePrefix {
    pub(crate) fn is_empty(self) -> bool {
        self == Self::default()
    }

    /// Returns the number of columns that are removed from each line, or 0 if it is in a quote.
    pub(crate) fn indentation(self) -> usize {
        if self.steps.contains(&QUOTE) {
            return 0;
        }
        self.steps.iter().map(|step| usize::from(*step)).sum::<usize>() + usize::from(self.columns)
    }

    /// Limits the prefix to the indentation that all lines share, for lists whose content is
    /// indented less than required.
    pub(crate) fn limit_to(&mut self, content: &[u8]) {
        let lines = content.split(|byte| matches!(byte, b'\n' | b'\r')).map(LineCursor::new);
        let least = lines.filter(|line| !line.is_blank()).map(|line| line.indent()).min();
        let least = least.and_then(|least| u8::try_from(least).ok()).unwrap_or(u8::MAX);
        self.columns = self.columns.min(least);
    }

    /// Appends the line without its prefix to `out`. If the prefix ends inside a tab, the rest of
    /// the tab becomes spaces (CommonMark 2.2).
    pub(crate) fn strip(self, line: &[u8], out: &mut Vec<u8>) {
        let mut at = LineCursor::new(line);
        for step in self.steps.into_iter().take_while(|step| *step != 0) {
            if step == QUOTE {
                at.take_quote();
            } else {
                at.take_columns(usize::from(step).min(at.indent()));
            }
        }
        at.take_columns(usize::from(self.columns).min(at.indent()));
        out.resize(out.len() + at.tab_rest, b' ');
        out.extend_from_slice(at.rest());
    }
}

/// A position in a line with its column. Tabs extend to the next multiple of four.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LineCursor<'a> {
    text: &'a [u8],
    pub(crate) at: usize,
    column: usize,
    /// Columns of the tab before `at` that have not been consumed.
    tab_rest: usize,
}

impl<'a> LineCursor<'a> {
    pub(crate) fn new(text: &'a [u8]) -> Self {
        Self { text, at: 0, column: 0, tab_rest: 0 }
    }

    pub(crate) fn rest(&self) -> &'a [u8] {
        &self.text[self.at..]
    }

    pub(crate) fn rest_trimmed(&self) -> &'a [u8] {
        &self.text[self.at + self.spaces()..]
    }

    /// Returns the number of white-space bytes from here on.
    pub(crate) fn spaces(&self) -> usize {
        self.rest().iter().take_while(|byte| is_blank(byte)).count()
    }

    /// Returns the number of white-space columns from here on.
    pub(crate) fn indent(&self) -> usize {
        let mut column = self.column + self.tab_rest;
        for byte in self.rest() {
            match byte {
                b' ' => column += 1,
                b'\t' => column += 4 - column % 4,
                _ => break,
            }
        }
        column - self.column
    }

    pub(crate) fn is_blank(&self) -> bool {
        self.rest().iter().all(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n'))
    }

    /// Skips up to `columns` columns of white space.
    pub(crate) fn take_columns(&mut self, mut columns: usize) {
        let tab_rest = self.tab_rest.min(columns);
        (self.tab_rest, self.column, columns) =
            (self.tab_rest - tab_rest, self.column + tab_rest, columns - tab_rest);
        while columns > 0 {
            let width = match self.text.get(self.at) {
                Some(b' ') => 1,
                Some(b'\t') => 4 - self.column % 4,
                _ => return,
            };
            self.at += 1;
            let taken = width.min(columns);
            (self.column, self.tab_rest, columns) = (self.column + taken, width - taken, columns - taken);
        }
    }

    /// Skips a block-quote marker and the space that belongs to it; returns whether there was one.
    pub(crate) fn take_quote(&mut self) -> bool {
        let indent = self.indent();
        if indent > 3 || self.rest_trimmed().first() != Some(&b'>') {
            return false;
        }
        self.take_columns(indent);
        self.at += 1;
        self.column += 1;
        self.take_columns(1);
        true
    }

    /// Skips a list marker of `width` bytes and the space after it; returns the columns of both.
    pub(crate) fn take_marker(&mut self, width: usize) -> usize {
        self.at += width;
        self.column += width;
        let spaces = self.indent();
        let taken = if self.is_blank() || spaces > 4 { 1 } else { spaces };
        self.take_columns(taken);
        width + taken
    }
}

pub(crate) fn is_blank(byte: &u8) -> bool {
    matches!(byte, b' ' | b'\t')
}
