//! Sentences of plain text, by the rules of Unicode. Unaware of languages.

mod class;

use crate::cut::{Cut, Cuts};
use crate::layout::UnitKind;
use crate::splitter::{Cap, SplitError, Splitter};
use class::{Class, next_char};

/// Cuts into sentences by the default rules of Unicode (UAX #29, rules SB1 to SB11,
/// <https://www.unicode.org/reports/tr29/#Sentence_Boundaries>), and leaves out the blanks between them.
///
/// A sentence ends behind `.`, `!`, `?` and their like, with the brackets and quotes that follow; a full stop does not end one before
/// a small letter or a digit, nor between a letter and a capital. The end of a line ends a sentence too: prose that is wrapped at a
/// width is for [`Paragraphs`](crate::Paragraphs). A sentence leaves with the first character that shows that it is over, which is the one
/// after the blanks. The rules know no abbreviations: `Mr. Wave` is cut.
///
/// Letters, cases and digits are those of the standard library; terminators, continuations, quotes and brackets those of Latin, Greek,
/// Arabic, Devanagari and CJK. Characters that only modify others are seen through (SB5), in the usual ranges. The last sentence of a
/// stream is [incomplete](crate::Unit::is_complete) unless a terminator ends it. Bytes that are not UTF-8 are characters of no class.
#[derive(Debug, Default)]
pub struct Sentences {
    cap: Cap,
    state: State,
    /// Where characters are looked at next.
    next: usize,
    /// Behind the last character that is not blank.
    end: usize,
    continued: bool,
}

/// Where in a sentence the scanner stands. UAX #29 reads it off what is left and right of a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    /// Before the first character that is not blank.
    #[default]
    Between,
    /// In a sentence; whether the last character was a letter with a case (SB7).
    Inside { after_cased: bool },
    /// Behind a terminator: `SATerm Close* Sp*`.
    Ended(Ended),
    /// Behind a full stop that a small letter would undo (SB8), and over characters that are neither letters nor ends. If nothing undoes
    /// it, the sentence ends at `end` and the next one begins at `resume`.
    Doubtful { end: usize, resume: usize },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ended {
    is_full_stop: bool,
    /// The full stop came behind a letter with a case.
    after_cased: bool,
    /// Nothing has followed the terminator yet.
    is_fresh: bool,
    /// Blanks have followed.
    is_spaced: bool,
}

/// What a character behind a terminator does.
enum Step {
    /// It goes with the terminator.
    Stay(Ended),
    /// The sentence goes on.
    Inside,
    /// It may go on.
    Doubt,
    /// The sentence was over.
    Break,
}

impl Ended {
    fn step(self, class: Class) -> Step {
        match class {
            // SB9 and SB10.
            Class::Space => Step::Stay(Self { is_fresh: false, is_spaced: true, ..self }),
            Class::Close if !self.is_spaced => Step::Stay(Self { is_fresh: false, ..self }),
            // SB8a.
            Class::Continue | Class::FullStop | Class::Terminator => Step::Inside,
            _ if !self.is_full_stop => Step::Break,
            // SB6 and SB7.
            Class::Numeric if self.is_fresh => Step::Inside,
            Class::Upper if self.is_fresh && self.after_cased => Step::Inside,
            // SB8.
            Class::Lower => Step::Inside,
            Class::Upper | Class::OtherLetter => Step::Break,
            _ => Step::Doubt,
        }
    }
}

impl Sentences {
    /// Sentences up to `cap`.
    #[must_use]
    pub fn new(cap: Cap) -> Self {
        Self { cap, ..Self::default() }
    }

    /// Looks at all characters of the window; returns where the sentence starts that is open.
    fn run(&mut self, window: &[u8], is_last: bool, out: &mut Cuts) -> Result<usize, SplitError> {
        let mut start = 0;
        while let Some((class, length)) = next_char(window, self.next, is_last) {
            let at = self.next;
            self.next += length;
            start = self.character(class, at, start, out);
            if self.state == State::Between {
                start = self.next;
            } else {
                start = self.enforce(window, start, out)?;
            }
        }
        Ok(if self.state == State::Between { self.next } else { start })
    }

    /// Takes in the character at `at` in the sentence from `start` on; returns where the sentence starts that it belongs to.
    fn character(&mut self, class: Class, at: usize, start: usize, out: &mut Cuts) -> usize {
        match (self.state, class) {
            (State::Between, Class::Space | Class::ParaSep) => return start,
            (State::Between, _) => {
                self.go_on(class, false);
                return at;
            }
            (_, Class::ParaSep) => {
                self.line_end(start, out);
                return start;
            }
            // SB5.
            (_, Class::Extend) => self.end = self.next,
            (State::Inside { after_cased }, _) => self.go_on(class, after_cased),
            (State::Ended(ended), _) => return self.behind_end(ended, class, at, start, out),
            (State::Doubtful { .. }, Class::Lower) => self.go_on(class, false),
            (
                State::Doubtful { .. },
                Class::OtherLetter | Class::Upper | Class::FullStop | Class::Terminator,
            ) => {
                let resume = self.resolve(start, out);
                self.go_on(class, false);
                return resume;
            }
            (State::Doubtful { .. }, Class::Space) => {}
            (State::Doubtful { .. }, _) => self.end = self.next,
        }
        start
    }

    fn behind_end(&mut self, ended: Ended, class: Class, at: usize, start: usize, out: &mut Cuts) -> usize {
        match ended.step(class) {
            Step::Stay(ended) => {
                self.state = State::Ended(ended);
                if class != Class::Space {
                    self.end = self.next;
                }
                start
            }
            Step::Inside => {
                self.go_on(class, false);
                start
            }
            Step::Doubt => {
                self.state = State::Doubtful { end: self.end, resume: at };
                self.end = self.next;
                start
            }
            Step::Break => {
                self.emit(start, self.end, out);
                self.go_on(class, false);
                at
            }
        }
    }

    /// One more character of a sentence.
    fn go_on(&mut self, class: Class, after_cased: bool) {
        self.state = match class {
            Class::FullStop | Class::Terminator => State::Ended(Ended {
                is_full_stop: class == Class::FullStop,
                after_cased,
                is_fresh: true,
                is_spaced: false,
            }),
            _ => State::Inside { after_cased: matches!(class, Class::Upper | Class::Lower) },
        };
        if class != Class::Space {
            self.end = self.next;
        }
    }

    /// The end of a line ends whatever is open (SB4, SB11).
    fn line_end(&mut self, start: usize, out: &mut Cuts) {
        let start = self.resolve(start, out);
        self.emit(start, self.end, out);
        self.state = State::Between;
    }

    /// Nothing has undone a doubtful end.
    fn resolve(&mut self, start: usize, out: &mut Cuts) -> usize {
        let State::Doubtful { end, resume } = self.state else { return start };
        self.emit(start, end, out);
        self.state = State::Inside { after_cased: false };
        resume
    }

    fn emit(&mut self, start: usize, end: usize, out: &mut Cuts) {
        let continued = std::mem::take(&mut self.continued);
        out.push(Cut::new(UnitKind::Sentence, start..end).continued(continued));
    }

    /// Cuts what was seen to the cap. An end that lies in a piece is in doubt no more.
    fn enforce(&mut self, window: &[u8], start: usize, out: &mut Cuts) -> Result<usize, SplitError> {
        let continued = &mut self.continued;
        let rest = self.cap.enforce(window, start..self.next, out, |piece| {
            Cut::new(UnitKind::Sentence, piece).incomplete().continued(std::mem::replace(continued, true))
        })?;
        self.end = self.end.max(rest);
        if matches!(self.state, State::Doubtful { end, .. } if end < rest) {
            self.state = State::Inside { after_cased: false };
        }
        Ok(rest)
    }

    fn shift(&mut self, by: usize) {
        self.next -= by;
        self.end = self.end.saturating_sub(by);
        if let State::Doubtful { end, resume } = &mut self.state {
            (*end, *resume) = (*end - by, *resume - by);
        }
    }
}

impl Splitter for Sentences {
    fn scan(&mut self, window: &[u8], _fresh: usize, out: &mut Cuts) -> Result<usize, SplitError> {
        let start = self.run(window, false, out)?;
        self.shift(start);
        Ok(start)
    }

    fn finish(&mut self, window: &[u8], out: &mut Cuts) -> Result<(), SplitError> {
        let start = self.run(window, true, out)?;
        if self.state == State::Between {
            return Ok(());
        }
        let start = self.resolve(start, out);
        let cut = Cut::new(UnitKind::Sentence, start..self.end).continued(self.continued);
        out.push(if matches!(self.state, State::Ended(_)) { cut } else { cut.incomplete() });
        Ok(())
    }
}
