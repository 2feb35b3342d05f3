use calc_units::{convert, find};

fn close(left: f64, right: f64) -> bool {
    (left - right).abs() < 1e-9 * right.abs().max(1.0)
}

#[test]
fn lengths_masses_and_times() {
    assert!(close(convert(1.0, "mile", "km").unwrap(), 1.609344));
    assert!(close(convert(2500.0, "g", "kg").unwrap(), 2.5));
    assert!(close(convert(1.5, "h", "min").unwrap(), 90.0));
}

#[test]
fn temperatures_have_an_offset() {
    assert!(close(convert(100.0, "C", "F").unwrap(), 212.0));
    assert!(close(convert(0.0, "K", "C").unwrap(), -273.15));
}

#[test]
fn there_and_back_again() {
    for (from, to) in [("mm", "mile"), ("t", "g"), ("s", "h"), ("F", "K")] {
        assert!(close(convert(convert(12.5, from, to).unwrap(), to, from).unwrap(), 12.5));
    }
}

#[test]
fn kinds_do_not_mix() {
    assert_eq!(convert(1.0, "m", "s"), Err("`m` cannot become `s`".to_owned()));
    assert_eq!(convert(1.0, "m", "parsec"), Err("there is no unit `parsec`".to_owned()));
    assert!(find("parsec").is_none());
}
