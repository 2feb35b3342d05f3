use calc::{Calculator, calculate};

#[test]
fn whole_expressions() {
    assert_eq!(calculate("1 + 2 * 3"), Ok("7".to_owned()));
    assert_eq!(calculate("sqrt(2) ^ 2"), Ok("2".to_owned()));
    assert_eq!(calculate("max(1000, 10 ^ 6)"), Ok("1 000 000".to_owned()));
}

#[test]
fn mistakes_come_back_as_text() {
    assert_eq!(calculate("1 / 0"), Err("division by zero".to_owned()));
    assert_eq!(calculate("2 +"), Err("the expression ends where a value should stand".to_owned()));
}

#[test]
fn variables_are_remembered() {
    let mut calculator = Calculator::default();
    assert_eq!(calculator.line("rate = 19 / 100"), Ok("0.19".to_owned()));
    assert_eq!(calculator.line("200 * (1 + rate)"), Ok("238".to_owned()));
}

#[test]
fn the_last_result_has_a_name() {
    let mut calculator = Calculator::default();
    assert_eq!(calculator.line("6 * 7"), Ok("42".to_owned()));
    assert_eq!(calculator.line("ans / 2"), Ok("21".to_owned()));
}
