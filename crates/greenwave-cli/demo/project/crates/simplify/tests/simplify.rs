use calc_ast::{BinaryOp, Expr};
use calc_simplify::simplify;

fn x() -> Expr {
    Expr::variable("x")
}

fn check(op: BinaryOp, left: Expr, right: Expr, expected: &str) {
    assert_eq!(simplify(&Expr::binary(op, left, right)).to_string(), expected);
}

#[test]
fn numbers_are_computed() {
    check(BinaryOp::Mul, Expr::Number(6.0), Expr::Number(7.0), "42");
    assert_eq!(simplify(&Expr::negative(Expr::Number(3.0))), Expr::Number(-3.0));
}

#[test]
fn neutral_elements_vanish() {
    check(BinaryOp::Add, x(), Expr::Number(0.0), "x");
    check(BinaryOp::Mul, Expr::Number(1.0), x(), "x");
    check(BinaryOp::Pow, x(), Expr::Number(1.0), "x");
    check(BinaryOp::Div, x(), Expr::Number(1.0), "x");
}

#[test]
fn zero_takes_a_product_with_it() {
    check(BinaryOp::Mul, x(), Expr::Number(0.0), "0");
}

#[test]
fn what_divides_by_zero_is_left_alone() {
    check(BinaryOp::Div, Expr::Number(1.0), Expr::Number(0.0), "1 / 0");
}

#[test]
fn inner_parts_first() {
    let zero = Expr::binary(BinaryOp::Sub, Expr::Number(2.0), Expr::Number(2.0));
    check(BinaryOp::Add, zero, Expr::negative(Expr::negative(x())), "x");
}
