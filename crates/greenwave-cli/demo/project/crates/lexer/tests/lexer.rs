use calc_lexer::{tokenize, Token};

fn tokens(source: &str) -> Vec<Token> {
    tokenize(source).expect("a valid expression").into_iter().map(|(_, token)| token).collect()
}

#[test]
fn operators_and_parentheses() {
    let expected = ['(', '+', '-', '*', '/', '^', ',', ')'].map(Token::Symbol);
    assert_eq!(tokens("( + - * / ^ , )"), expected);
}

#[test]
fn numbers_with_fractions_and_exponents() {
    let expected = [1.0, 2.5, 0.5, 3e10, 4e-2].map(Token::Number);
    assert_eq!(tokens("1 2.5 .5 3e10 4E-2"), expected);
}

#[test]
fn names_may_hold_digits_and_underscores() {
    let expected = ["x", "log10", "tax_rate"].map(|name| Token::Name(name.to_owned()));
    assert_eq!(tokens("x log10 tax_rate"), expected);
}

#[test]
fn places_are_byte_offsets() {
    let places: Vec<usize> = tokenize("12 + ab").unwrap().into_iter().map(|(at, _)| at).collect();
    assert_eq!(places, [0, 3, 5]);
}

#[test]
fn what_is_no_token_is_refused_with_its_place() {
    let error = tokenize("1 + $").unwrap_err();
    assert_eq!((error.at, error.to_string()), (4, "unexpected `$` at 4".to_owned()));
    assert_eq!(tokenize("1.2.3").unwrap_err().at, 3);
}
