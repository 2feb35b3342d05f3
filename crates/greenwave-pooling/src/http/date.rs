//! Parses HTTP dates in all three formats (RFC 9110, section 5.6.7) and formats them in the
//! preferred one.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: [&str; 7] = ["sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"];

/// Seconds per day.
const DAY: u64 = 86_400;

/// Parses a date in any of the three formats, ignoring case. Returns `None` for other text and for
/// dates before 1970.
///
/// The day of the week is not checked against the date, since some senders get it wrong. `now`
/// determines the century of a two-digit year: a date more than 50 years in the future is taken to
/// be in the past.
pub(super) fn parse(text: &str, now: SystemTime) -> Option<SystemTime> {
    let text = text.trim_matches([' ', '\t']).to_ascii_lowercase();
    if let Some((day, rest)) = text.split_once(", ") {
        return match DAYS.iter().position(|name| *name == day) {
            Some(_) => rfc850(rest, now),
            None => DAYS.iter().any(|name| name[..3] == *day).then(|| imf_fixdate(rest)).flatten(),
        };
    }
    let (day, rest) = text.split_once(' ')?;
    DAYS.iter().any(|name| name[..3] == *day).then(|| asctime(rest)).flatten()
}

/// Formats a time in the preferred format. Returns `None` before 1970 and after 9999.
pub(super) fn format(time: SystemTime) -> Option<String> {
    let seconds = time.duration_since(UNIX_EPOCH).ok()?.as_secs();
    let (days, second) = (seconds / DAY, seconds % DAY);
    let (year, month, day) = civil(days);
    if year > 9999 {
        return None;
    }
    let title = |name: &str| format!("{}{}", name[..1].to_ascii_uppercase(), &name[1..3]);
    // January 1, 1970 was a Thursday.
    let weekday = title(DAYS[((days + 4) % 7) as usize]);
    let month = title(MONTHS[month as usize - 1]);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    Some(format!("{weekday}, {day:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} GMT"))
}

/// Parses `06 nov 1994 08:49:37 gmt`.
fn imf_fixdate(text: &str) -> Option<SystemTime> {
    let [day, month, year, time, "gmt"] = fields(text)? else { return None };
    at(digits(year, 4)?, month, digits(day, 2)?, time)
}

/// Parses `06-nov-94 08:49:37 gmt`.
fn rfc850(text: &str, now: SystemTime) -> Option<SystemTime> {
    let [date, time, "gmt"] = fields(text)? else { return None };
    let mut parts = date.split('-');
    let (day, month, year) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let (this_year, ..) = civil(now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() / DAY);
    let year = this_year / 100 * 100 + digits(year, 2)?;
    let year = if year > this_year + 50 { year - 100 } else { year };
    at(year, month, digits(day, 2)?, time)
}

/// Parses `nov  6 08:49:37 1994`. A day below 10 is padded with a space.
fn asctime(text: &str) -> Option<SystemTime> {
    let (month, rest) = text.split_at_checked(4)?;
    let (day, rest) = rest.split_at_checked(2)?;
    let [time, year] = fields(rest.strip_prefix(' ')?)?;
    let day = day.strip_prefix(' ').map_or_else(|| digits(day, 2), |day| digits(day, 1))?;
    at(digits(year, 4)?, month.strip_suffix(' ')?, day, time)
}

/// Splits text into exactly `N` fields separated by single spaces.
fn fields<const N: usize>(text: &str) -> Option<[&str; N]> {
    let mut fields = [""; N];
    let mut rest = text.split(' ');
    for field in &mut fields {
        *field = rest.next()?;
    }
    rest.next().is_none().then_some(fields)
}

/// Parses exactly `count` digits.
fn digits(text: &str, count: usize) -> Option<u64> {
    (text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok())?
}

fn at(year: u64, month: &str, day: u64, time: &str) -> Option<SystemTime> {
    let month = MONTHS.iter().position(|name| *name == month)? as u64 + 1;
    let mut parts = time.split(':').map(|part| digits(part, 2));
    let (hour, minute, second) = (parts.next()??, parts.next()??, parts.next()??);
    // A leap second is written as 60.
    let is_time = parts.next().is_none() && hour < 24 && minute < 60 && second <= 60;
    if !is_time || year < 1970 || !(1..=days_of_month(year, month)).contains(&day) {
        return None;
    }
    let seconds = days_since_1970(year, month, day) * DAY + hour * 3600 + minute * 60 + second;
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn days_of_month(year: u64, month: u64) -> u64 {
    match month {
        2 => 28 + u64::from(is_leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Returns the days since January 1, 1970, for years from 1970 on. This is `days_from_civil` of
/// <https://howardhinnant.github.io/date_algorithms.html>, which counts years from March.
fn days_since_1970(year: u64, month: u64, day: u64) -> u64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year / 400, year % 400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + day_of_year - 719_468
}

/// Converts days since 1970 to year, month and day.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let day_of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march = (5 * day_of_year + 2) / 153;
    let month = if march < 10 { march + 3 } else { march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day_of_year - (153 * march + 2) / 5 + 1)
}

#[cfg(test)]
mod tests;
