//! Tests of HTTP dates.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{civil, days_since_1970, format, parse};

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

/// In the year 2026.
const NOW: u64 = 1_780_000_000;

#[test]
fn all_three_formats_are_parsed_in_any_case() {
    for text in [
        "Sun, 06 Nov 1994 08:49:37 GMT",
        "SUN, 06 nov 1994 08:49:37 gMt",
        "Mon, 06 Nov 1994 08:49:37 GMT",
        " Sun, 06 Nov 1994 08:49:37 GMT\t",
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994",
    ] {
        assert_eq!(parse(text, at(NOW)), Some(at(784_111_777)), "{text}");
    }
    assert_eq!(parse("Sun Nov 16 08:49:37 1994", at(NOW)), Some(at(784_975_777)));
}

#[test]
fn invalid_dates_are_rejected() {
    for text in [
        "",
        "0",
        "-1",
        "now",
        "Sun, 06 Nov 1994 08:49:37 UTC",
        "Sun, 06 Nov 1994 08:49:37 +0000",
        "Sun, 06 Nov 1994 08:49:37",
        "Sun 06 Nov 1994 08:49:37 GMT",
        "Sun, 06  Nov  1994 08:49:37 GMT",
        "Sun, 6 Nov 1994 08:49:37 GMT",
        "Sun, 06-Nov-1994 08:49:37 GMT",
        "Sun, 06 Nov 94 08:49:37 GMT",
        "Sun, 06 Nov 1994 8:49:37 GMT",
        "Sun, 06 Nov 1994 08.49.37 GMT",
        "Sun, 06 Nov 1994 08:49 GMT",
        "Sun, 06 Nov 1994 24:00:00 GMT",
        "Sun, 31 Nov 1994 08:49:37 GMT",
        "Sun, 00 Nov 1994 08:49:37 GMT",
        "Tue, 29 Feb 2100 08:49:37 GMT",
        "Wed, 31 Dec 1969 23:59:59 GMT",
        "Xyz, 06 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 08:49:37 GMT, Sun, 06 Nov 1994 08:49:37 GMT",
        "Sunday, 06-Nov-1994 08:49:37 GMT",
        "Sun Nov 6 08:49:37 1994",
        "Sün, 06 Nov 1994 08:49:37 GMT",
    ] {
        assert_eq!(parse(text, at(NOW)), None, "{text}");
    }
}

/// RFC 9110: a date that seems more than 50 years in the future is in the past.
#[test]
fn two_digit_years_are_resolved() {
    let year = |text: &str| {
        let time = parse(text, at(NOW)).expect("a date");
        civil(time.duration_since(UNIX_EPOCH).expect("after 1970").as_secs() / 86_400).0
    };
    assert_eq!(year("Friday, 01-Jan-76 00:00:00 GMT"), 2076);
    assert_eq!(year("Friday, 01-Jan-77 00:00:00 GMT"), 1977);
    assert_eq!(year("Friday, 01-Jan-00 00:00:00 GMT"), 2000);
}

#[test]
fn every_day_of_eight_centuries_round_trips() {
    for days in 0..8 * 36_525 {
        let (year, month, day) = civil(days);
        assert_eq!(days_since_1970(year, month, day), days);
        let time = at(days * 86_400 + 3_723);
        assert_eq!(parse(&format(time).expect("before 9999"), at(NOW)), Some(time));
    }
    assert_eq!(format(at(784_111_777)).as_deref(), Some("Sun, 06 Nov 1994 08:49:37 GMT"));
    assert_eq!(format(UNIX_EPOCH - Duration::from_secs(1)), None);
    assert_eq!(format(at(253_402_300_800)), None);
}
