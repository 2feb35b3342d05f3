use calc_functions::{constant, function};

fn call(name: &str, arguments: &[f64]) -> Result<f64, String> {
    function(name).ok_or_else(|| format!("no function `{name}`"))?.call(arguments)
}

#[test]
fn functions_of_one_number() {
    assert_eq!(call("sqrt", &[16.0]), Ok(4.0));
    assert_eq!(call("abs", &[-3.0]), Ok(3.0));
    assert_eq!(call("ln", &[1.0]), Ok(0.0));
    assert_eq!(call("round", &[2.5]), Ok(3.0));
}

#[test]
fn functions_of_any_count() {
    assert_eq!(call("max", &[1.0, 5.0, 3.0]), Ok(5.0));
    assert_eq!(call("min", &[1.0, 5.0, 3.0]), Ok(1.0));
}

#[test]
fn a_wrong_count_is_refused() {
    assert_eq!(call("sqrt", &[1.0, 2.0]), Err("`sqrt` takes 1 argument, not 2".to_owned()));
    assert_eq!(call("max", &[]), Err("`max` takes at least 1 argument".to_owned()));
}

#[test]
fn constants() {
    assert_eq!(constant("pi"), Some(std::f64::consts::PI));
    assert_eq!(constant("tau"), Some(std::f64::consts::TAU));
    assert_eq!(constant("x"), None);
}

#[test]
fn unknown_names() {
    assert!(function("fourier").is_none());
}
