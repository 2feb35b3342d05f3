use calc_ast::{BinaryOp, Expr};

fn number(value: f64) -> Expr {
    Expr::Number(value)
}

#[test]
fn numbers_and_variables_print_as_they_are() {
    assert_eq!(number(2.5).to_string(), "2.5");
    assert_eq!(Expr::variable("x").to_string(), "x");
}

#[test]
fn parentheses_stand_only_where_they_are_needed() {
    let sum = Expr::binary(BinaryOp::Add, number(1.0), number(2.0));
    let product = Expr::binary(BinaryOp::Mul, sum.clone(), number(3.0));
    assert_eq!(sum.to_string(), "1 + 2");
    assert_eq!(product.to_string(), "(1 + 2) * 3");
    assert_eq!(Expr::binary(BinaryOp::Add, product, number(4.0)).to_string(), "(1 + 2) * 3 + 4");
}

#[test]
fn the_right_side_of_a_difference_keeps_its_parentheses() {
    let inner = Expr::binary(BinaryOp::Sub, number(2.0), number(3.0));
    assert_eq!(Expr::binary(BinaryOp::Sub, number(1.0), inner).to_string(), "1 - (2 - 3)");
}

#[test]
fn powers_group_to_the_right() {
    let inner = Expr::binary(BinaryOp::Pow, number(3.0), number(2.0));
    assert_eq!(Expr::binary(BinaryOp::Pow, number(2.0), inner.clone()).to_string(), "2 ^ 3 ^ 2");
    assert_eq!(Expr::binary(BinaryOp::Pow, inner, number(2.0)).to_string(), "(3 ^ 2) ^ 2");
}

#[test]
fn calls_and_negation_print_like_source() {
    let call = Expr::call("max", vec![number(1.0), Expr::negative(Expr::variable("y"))]);
    assert_eq!(call.to_string(), "max(1, -y)");
}
