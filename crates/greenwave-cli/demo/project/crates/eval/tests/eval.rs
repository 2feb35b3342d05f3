use std::collections::BTreeMap;

use calc_ast::{BinaryOp, Expr};
use calc_eval::eval;

fn value(expr: &Expr) -> Result<f64, String> {
    eval(expr, &BTreeMap::from([("x".to_owned(), 3.0)])).map_err(|error| error.to_string())
}

#[test]
fn arithmetic() {
    let product = Expr::binary(BinaryOp::Mul, Expr::Number(4.0), Expr::Number(5.0));
    assert_eq!(value(&Expr::binary(BinaryOp::Sub, product.clone(), Expr::Number(6.0))), Ok(14.0));
    assert_eq!(value(&Expr::binary(BinaryOp::Pow, Expr::Number(2.0), Expr::Number(10.0))), Ok(1024.0));
    assert_eq!(value(&Expr::negative(product)), Ok(-20.0));
}

#[test]
fn variables_come_before_constants() {
    assert_eq!(value(&Expr::variable("x")), Ok(3.0));
    assert_eq!(value(&Expr::variable("pi")), Ok(std::f64::consts::PI));
    assert_eq!(value(&Expr::variable("z")), Err("`z` has no value".to_owned()));
}

#[test]
fn calls() {
    let call = |name: &str| Expr::call(name, vec![Expr::Number(9.0)]);
    assert_eq!(value(&call("sqrt")), Ok(3.0));
    assert_eq!(value(&call("nothing")), Err("there is no function `nothing`".to_owned()));
}

#[test]
fn division_by_zero_is_an_error() {
    let quotient = Expr::binary(BinaryOp::Div, Expr::Number(1.0), Expr::Number(0.0));
    assert_eq!(value(&quotient), Err("division by zero".to_owned()));
}
