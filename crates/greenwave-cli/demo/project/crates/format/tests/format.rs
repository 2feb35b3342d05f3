use calc_format::format;

#[test]
fn whole_numbers_have_no_point() {
    assert_eq!(format(42.0), "42");
    assert_eq!(format(-7.0), "-7");
}

#[test]
fn thousands_are_grouped() {
    assert_eq!(format(1234567.0), "1 234 567");
    assert_eq!(format(-1000.5), "-1 000.5");
    assert_eq!(format(999.0), "999");
}

#[test]
fn rounding_errors_do_not_show() {
    assert_eq!(format(0.1 + 0.2), "0.3");
    assert_eq!(format(2.0 / 3.0), "0.6666666667");
}

#[test]
fn minus_zero_is_zero() {
    assert_eq!(format(-0.0), "0");
    assert_eq!(format(-1e-14), "0");
}

#[test]
fn what_is_no_number_says_so() {
    assert_eq!(format(f64::NAN), "undefined");
    assert_eq!(format(f64::INFINITY), "infinity");
    assert_eq!(format(f64::NEG_INFINITY), "-infinity");
}

#[test]
fn very_large_numbers_use_an_exponent() {
    assert_eq!(format(1.5e21), "1.5e21");
}
