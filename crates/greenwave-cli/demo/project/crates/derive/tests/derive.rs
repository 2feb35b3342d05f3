use calc_ast::{BinaryOp, Expr};
use calc_derive::derivative;

fn x() -> Expr {
    Expr::variable("x")
}

fn derived(expr: &Expr) -> Result<String, String> {
    derivative(expr, "x").map(|expr| expr.to_string())
}

#[test]
fn what_does_not_hold_the_variable_is_constant() {
    let constant = Expr::call("sqrt", vec![Expr::variable("y")]);
    assert!(x().contains("x") && !constant.contains("x"));
    assert_eq!(derived(&constant), Ok("0".to_owned()));
    assert_eq!(derived(&x()), Ok("1".to_owned()));
}

#[test]
fn sums_and_products() {
    let square = Expr::binary(BinaryOp::Mul, x(), x());
    assert_eq!(derived(&square), Ok("1 * x + x * 1".to_owned()));
    assert_eq!(derived(&Expr::binary(BinaryOp::Add, square, x())), Ok("1 * x + x * 1 + 1".to_owned()));
}

#[test]
fn constant_powers() {
    let cube = Expr::binary(BinaryOp::Pow, x(), Expr::Number(3.0));
    assert_eq!(derived(&cube), Ok("3 * x ^ 2 * 1".to_owned()));
}

#[test]
fn functions_by_the_chain_rule() {
    let sine = Expr::call("sin", vec![Expr::binary(BinaryOp::Mul, Expr::Number(2.0), x())]);
    assert_eq!(derived(&sine), Ok("cos(2 * x) * (0 * x + 2 * 1)".to_owned()));
}

#[test]
fn what_has_no_known_derivative_says_so() {
    assert_eq!(derived(&Expr::call("round", vec![x()])), Err("no derivative of `round` is known".to_owned()));
}
