//! Splits plain text into sentences, according to Unicode.

mod class;

use crate::cut::{Cut, Cuts};
use crate::layout::UnitKind;
use crate::splitter::{Cap, SplitError, Splitter};
use class::{Class, next_char};

/// Splits text into sentences by the default rules of Unicode (UAX #29, rules SB1 to SB11,
/// <https://www.unicode.org/reports/tr29/#Sentence_Boundaries>), without the white space between
/// them.
///
/// A sentence ends after `.`, `!`, `?` and similar terminators, including the brackets and quotes
/// that follow. A full stop does not end a sentence before a lower-case letter or a digit, nor
/// between a letter and a capital. A line ending also ends a sentence; for prose that is wrapped at
/// a width, use [`Paragraphs`](crate::Paragraphs). A sentence is reported when the first character
/// of the next one arrives. The rules do not consider abbreviations: `Mr. Wave` is split.
///
/// Letters, cases and digits are classified by the standard library. Terminators, continuations,
/// quotes and brackets are those of Latin, Greek, Arabic, Devanagari and CJK. Characters of the
/// usual ranges that only modify others are ignored (SB5). The last sentence of a stream is
/// [incomplete](crate::Unit::is_complete) unless it has a terminator. Bytes that are not UTF-8
/// belong to no class.
#[derive(Debug, Default)]
pub struct Sentences {
    cap: Cap,
    state: SentenceState,
    /// Offset of the next character to classify.
    next: usize,
    /// End of the last character that is not white space.
    end: usize,
    continued: bool,
}

/// The position in a sentence. UAX #29 defines it by the characters left and right of a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum SentenceState {
    /// Before the first character that is not white space.
    #[default]
    Between,
    /// In a sentence. `after_cased` is set if the last character was a letter with a case (SB7).
    Inside { after_cased: bool },
    /// After a terminator: `SATerm Close* Sp*`.
    Ended(Ended),
    /// After a full stop and characters that are neither letters nor terminators. A lower-case
    /// letter would cancel the end (SB8). Otherwise the sentence ends at `end` and the next one
    /// starts at `resume`.
    Doubtful { end: usize, resume: usize },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ended {
    is_full_stop: bool,
    /// The full stop followed a letter with a case.
    after_cased: bool,
    /// No character has followed the terminator yet.
    is_fresh: bool,
    /// White space has followed.
    is_spaced: bool,
}

/// The effect of a character after a terminator.
enum TerminatorEffect {
    /// It belongs to the terminator.
    Stay(Ended),
    /// The sentence continues.
    Inside,
    /// The sentence may continue.
    Doubt,
    /// The sentence ended before it.
    Break,
}

impl Ended {
    fn step(self, class: Class) -> TerminatorEffect {
        match class {
            // SB9 and SB10.
            Class::Space => TerminatorEffect::Stay(Self { is_fresh: false, is_spaced: true, ..self }),
            Class::Close if !self.is_spaced => TerminatorEffect::Stay(Self { is_fresh: false, ..self }),
            // SB8a.
            Class::Continue | Class::FullStop | Class::Terminator => TerminatorEffect::Inside,
            _ if !self.is_full_stop => TerminatorEffect::Break,
            // SB6 and SB7.
            Class::Numeric if self.is_fresh => TerminatorEffect::Inside,
            Class::Upper if self.is_fresh && self.after_cased => TerminatorEffect::Inside,
            // SB8.
            Class::Lower => TerminatorEffect::Inside,
            Class::Upper | Class::OtherLetter => TerminatorEffect::Break,
            _ => TerminatorEffect::Doubt,
        }
    }
}

impl Sentences {
    /// Creates a splitter for sentences of up to `cap`.
    #[must_use]
    pub fn new(cap: Cap) -> Self {
        Self { cap, ..Self::default() }
    }

    /// Processes all characters of the window; returns the start of the open sentence.
    fn run(&mut self, window: &[u8], is_last: bool, out: &mut Cuts) -> Result<usize, SplitError> {
        let mut start = 0;
        while let Some((class, length)) = next_char(window, self.next, is_last) {
            let at = self.next;
            self.next += length;
            start = self.character(class, at, start, out);
            if self.state == SentenceState::Between {
                start = self.next;
            } else {
                start = self.enforce(window, start, out)?;
            }
        }
        Ok(if self.state == SentenceState::Between { self.next } else { start })
    }

    /// Processes the character at `at` in the sentence that starts at `start`; returns the start of
    /// the sentence that the character belongs to.
    fn character(&mut self, class: Class, at: usize, start: usize, out: &mut Cuts) -> usize {
        match (self.state, class) {
            (SentenceState::Between, Class::Space | Class::ParaSep) => return start,
            (SentenceState::Between, _) => {
                self.extend(class, false);
                return at;
            }
            (_, Class::ParaSep) => {
                self.line_end(start, out);
                return start;
            }
            // SB5.
            (_, Class::Extend) => self.end = self.next,
            (SentenceState::Inside { after_cased }, _) => self.extend(class, after_cased),
            (SentenceState::Ended(ended), _) => return self.after_end(ended, class, at, start, out),
            (SentenceState::Doubtful { .. }, Class::Lower) => self.extend(class, false),
            (
                SentenceState::Doubtful { .. },
                Class::OtherLetter | Class::Upper | Class::FullStop | Class::Terminator,
            ) => {
                let resume = self.resolve(start, out);
                self.extend(class, false);
                return resume;
            }
            (SentenceState::Doubtful { .. }, Class::Space) => {}
            (SentenceState::Doubtful { .. }, _) => self.end = self.next,
        }
        start
    }

    fn after_end(&mut self, ended: Ended, class: Class, at: usize, start: usize, out: &mut Cuts) -> usize {
        match ended.step(class) {
            TerminatorEffect::Stay(ended) => {
                self.state = SentenceState::Ended(ended);
                if class != Class::Space {
                    self.end = self.next;
                }
                start
            }
            TerminatorEffect::Inside => {
                self.extend(class, false);
                start
            }
            TerminatorEffect::Doubt => {
                self.state = SentenceState::Doubtful { end: self.end, resume: at };
                self.end = self.next;
                start
            }
            TerminatorEffect::Break => {
                self.emit(start, self.end, out);
                self.extend(class, false);
                at
            }
        }
    }

    /// Adds a character to the sentence.
    fn extend(&mut self, class: Class, after_cased: bool) {
        self.state = match class {
            Class::FullStop | Class::Terminator => SentenceState::Ended(Ended {
                is_full_stop: class == Class::FullStop,
                after_cased,
                is_fresh: true,
                is_spaced: false,
            }),
            _ => SentenceState::Inside { after_cased: matches!(class, Class::Upper | Class::Lower) },
        };
        if class != Class::Space {
            self.end = self.next;
        }
    }

    /// Ends the open sentence at a line ending (SB4, SB11).
    fn line_end(&mut self, start: usize, out: &mut Cuts) {
        let start = self.resolve(start, out);
        self.emit(start, self.end, out);
        self.state = SentenceState::Between;
    }

    /// Confirms a doubtful end.
    fn resolve(&mut self, start: usize, out: &mut Cuts) -> usize {
        let SentenceState::Doubtful { end, resume } = self.state else { return start };
        self.emit(start, end, out);
        self.state = SentenceState::Inside { after_cased: false };
        resume
    }

    fn emit(&mut self, start: usize, end: usize, out: &mut Cuts) {
        let continued = std::mem::take(&mut self.continued);
        out.push(Cut::new(UnitKind::Sentence, start..end).continued(continued));
    }

    /// Splits the open sentence at the cap. A doubtful end inside a piece is canceled.
    fn enforce(&mut self, window: &[u8], start: usize, out: &mut Cuts) -> Result<usize, SplitError> {
        let continued = &mut self.continued;
        let rest = self.cap.enforce(window, start..self.next, out, |piece| {
            Cut::new(UnitKind::Sentence, piece).incomplete().continued(std::mem::replace(continued, true))
        })?;
        self.end = self.end.max(rest);
        if matches!(self.state, SentenceState::Doubtful { end, .. } if end < rest) {
            self.state = SentenceState::Inside { after_cased: false };
        }
        Ok(rest)
    }

    fn shift(&mut self, by: usize) {
        self.next -= by;
        self.end = self.end.saturating_sub(by);
        if let SentenceState::Doubtful { end, resume } = &mut self.state {
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
        if self.state == SentenceState::Between {
            return Ok(());
        }
        let start = self.resolve(start, out);
        let cut = Cut::new(UnitKind::Sentence, start..self.end).continued(self.continued);
        out.push(if matches!(self.state, SentenceState::Ended(_)) { cut } else { cut.incomplete() });
        Ok(())
    }
}
